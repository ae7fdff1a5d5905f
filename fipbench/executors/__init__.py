"""Where jobs run. An executor takes tickets and yields records as they finish."""
