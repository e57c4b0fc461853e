"""Where and when jobs run: the only package that imports Ray and Optuna."""
