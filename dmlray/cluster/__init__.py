"""Where and when jobs run: the only room that imports Ray and Optuna."""
