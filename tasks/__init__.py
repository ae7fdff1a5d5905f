"""The suite's tasks, one TOML file each. A folder of data, importable so that it is found once installed."""
