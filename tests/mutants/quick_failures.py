"""A pytest plugin: what hypothesis finds is found, not made as small as can be, which would take minutes a mutant."""

from hypothesis import Phase, settings

settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False, database=None)
settings.load_profile("mutants")
