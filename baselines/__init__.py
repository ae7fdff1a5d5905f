"""The suite's own methods, one file each, found the way anyone's plugin is: through entry points."""
