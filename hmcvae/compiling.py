"""Compiler options of programs that do not run long enough to pay for being optimised.

On CPUs XLA spends most of a compilation in LLVM's optimiser, and the large programs here gain
little by it: their time goes into matrix products, which are compiled already. Of HH-VAEM on wine
the program that scores the test rows takes 28 s of CPU time to compile in full and 8 s by
`RUN_BRIEFLY`, runs as fast and gives the same bits; initial weights take 11 s and, by `RUN_ONCE`,
3 s. The imputer, whose stages end within a minute, trains by `RUN_BRIEFLY` as well; `launch.train`
optimises its steps in full.

`jax.jit` takes the options by the name `compiler_options`, for outermost functions only.
"""

RUN_ONCE = {"xla_backend_optimization_level": 0}
RUN_BRIEFLY = {"xla_backend_optimization_level": 1}
