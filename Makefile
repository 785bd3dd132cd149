# make lenet   train the seed's LeNet on MNIST digits
# make test    the nose suite; on the GPU too where there is one
# make check   the linter
# make bench   time the convolutions on a GPU, and make the table in benchmarks/
# make clean   remove what the others made
#
# Each makes what it needs, in .venv. PYTHON chooses the interpreter for it, 3.8 to 3.11.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV_PYTHON = .venv/bin/python
# Debian's pygpu, built for Debian's Python: usable from a .venv of the same version.
DEBIAN_PYGPU = /usr/lib/python3/dist-packages/pygpu

.PHONY: lenet test check bench clean

lenet: .venv/installed
	$(VENV_PYTHON) examples/lenet.py $(LENET)

test: .venv/installed
	$(VENV_PYTHON) -m nose tests $(TESTS)

check: .venv/installed
	$(VENV_PYTHON) -m ruff check .

bench: .venv/installed
	$(VENV_PYTHON) -m benchmarks.conv benchmarks/results/conv.json
	$(VENV_PYTHON) -m benchmarks.table benchmarks/results/conv.json benchmarks/README.md

# Setuptools first: Theano's own setup.py needs one below 81 to build.
.venv/installed: setup.py
	$(PYTHON) -m venv .venv
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check 'setuptools<81' wheel
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[test,examples]' ruff mako
	if $(VENV_PYTHON) .ci/can_import.py $(DEBIAN_PYGPU); then \
	  ln -sfn $(DEBIAN_PYGPU) "$$($(VENV_PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/pygpu"; \
	fi
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .ruff_cache lenet-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
