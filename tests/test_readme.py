"""The Python blocks of the README and of docs/ run as they are printed."""

import re
from pathlib import Path

import pytest

from tests.launch import small_tables

pytestmark = pytest.mark.slow  # whole programs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(page, code, id=f"{page.name}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_block_runs(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r'trained.load\("runs/(\w+)"\)', code):
        small_tables.make_run(tmp_path / "runs" / name, name)
    exec(compile(code, str(page), "exec"), {})


def test_readme_names_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    text = "".join(page.read_text() for page in PAGES)
    for config in re.findall(r"--config=(configs/\w+\.py)", text):
        assert (ROOT / config).exists(), config
