"""Scores printed in the source talk: (mean, population standard deviation over 10 splits).

`paper_nll_x` is the score of the missing features and `paper_nll_y` that of the target, both in
the `paper` definition of `hmcvae.predict`: tables 1 and 2 of Peis et al. (2022) for the ten tables
of mixed columns, 3 and 4 for images. Lower is better. `accuracy` of the label is its table 5.
"""

NUM_SPLITS = 10  # behind every mean and standard deviation below
MODELS = ("VAEM", "MIWAEM", "H-VAEM", "HMC-VAEM", "HH-VAEM")
IMAGE_MODELS = ("VAE", "MIWAE", "H-VAE", "HMC-VAE", "HH-VAE")
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
    "mnist": ".124 .001  .121 .001  .119 .001  .101 .004  .094 .003",
    "fashion_mnist": ".162 .002  .160 .002  .156 .002  .150 .002  .144 .002",
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
    "mnist": ".153 .009  .151 .007  .146 .006  .067 .007  .056 .019",
    "fashion_mnist": ".501 .012  .496 .008  .494 .007  .357 .060  .337 .069",
}
_ACCURACY = {
    "mnist": ".953 .004  .953 .003  .953 .003  .978 .003  .981 .005",
    "fashion_mnist": ".824 .005  .824 .004  .824 .004  .869 .015  .876 .017",
}
TABLES = tuple(_X)  # in the order in which the talk prints them, the images last


def models_of(table: str) -> tuple[str, ...]:
    """Returns the five models that were published on a table: the plain ones on images."""
    return IMAGE_MODELS if table in _ACCURACY else MODELS


def scores(table: str, model: str) -> dict[str, tuple[float, float]]:
    """Returns the published scores of a model on a table, or {} where nothing was published."""
    models = models_of(table)
    if table not in _X or model not in models:
        return {}
    at = 2 * models.index(model)
    found = {}
    for name, rows in (("paper_nll_x", _X), ("paper_nll_y", _Y), ("accuracy", _ACCURACY)):
        if table in rows:
            mean, std = rows[table].split()[at : at + 2]
            found[name] = (float(mean), float(std))
    return found
