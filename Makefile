# Two commands are enough: `make demo` and `make test`; both set up what they need.
.DEFAULT_GOAL := help
