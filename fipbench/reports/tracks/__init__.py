"""What the reports of one track show and say: a module each, with the functions that `fipbench.reports.views` names."""
