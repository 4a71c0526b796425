"""Scores printed in the source talk for the ten tables: (mean, standard deviation over 10 splits).

`paper_nll_x` is the score of the missing features and `paper_nll_y` that of the target, both in
the `paper` definition of `hmcvae.predict` (tables 1 and 2 of Peis et al. 2022). Lower is better.
"""

MODELS = ("VAEM", "MIWAEM", "H-VAEM", "HMC-VAEM", "HH-VAEM")
# One row a table: mean and standard deviation for each of the models.
_X = {
    "bank": "2.84 .07  2.74 .05  2.82 .06  2.69 .05  2.63 .04",
    "insurance": "1.81 .03  1.88 .04  1.80 .04  1.77 .06  1.75 .03",
    "avocado": "1.89 .01  1.92 .04  1.89 .01  1.89 .02  1.88 .05",
    "naval": "0.55 .05  0.57 .03  0.48 .06  0.49 .07  0.40 .05",
    "yacht": "3.15 .28  2.66 .11  3.06 .31  2.21 .24  2.47 .27",
    "diabetes": "2.78 .16  2.55 .09  2.74 .09  2.72 .20  2.54 .13",
    "concrete": "2.45 .26  2.34 .51  2.42 .21  2.28 .29  2.28 .09",
    "wine": "3.01 .61  2.76 .48  2.85 .56  2.83 .46  1.90 .17",
    "energy": "2.09 .10  2.06 .14  1.72 .11  1.73 .05  1.71 .04",
    "boston": "2.01 .23  1.94 .23  1.89 .24  1.83 .16  1.83 .11",
}
_Y = {
    "bank": "0.56 .06  0.51 .03  0.50 .03  0.52 .02  0.49 .03",
    "insurance": "1.20 .03  1.15 .03  1.06 .02  1.00 .03  0.93 .06",
    "avocado": "1.18 .02  1.15 .03  1.18 .02  1.12 .03  1.10 .01",
    "naval": "2.69 .01  2.70 .01  2.68 .01  2.71 .01  2.62 .01",
    "yacht": "0.61 .02  0.60 .03  0.60 .02  0.52 .15  0.56 .02",
    "diabetes": "1.59 .19  1.36 .10  1.71 .14  1.55 .29  1.38 .18",
    "concrete": "1.07 .09  0.95 .22  1.02 .09  0.95 .26  0.95 .08",
    "wine": "0.28 .09  0.28 .13  0.26 .11  0.28 .09  0.20 .04",
    "energy": "0.61 .14  0.54 .12  0.46 .14  0.41 .07  0.32 .05",
    "boston": "0.85 .21  0.80 .21  0.90 .22  0.71 .13  0.55 .04",
}


def scores(table: str, model: str) -> dict[str, tuple[float, float]]:
    """Returns the published scores of a model on a table, or {} where nothing was published."""
    if table not in _X or model not in MODELS:
        return {}
    at = 2 * MODELS.index(model)
    found = {}
    for name, rows in (("paper_nll_x", _X), ("paper_nll_y", _Y)):
        mean, std = rows[table].split()[at : at + 2]
        found[name] = (float(mean), float(std))
    return found
