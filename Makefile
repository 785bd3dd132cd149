# make lenet   train the seed's LeNet on MNIST digits
# make test    the nose suite; on the GPU too where there is one
# make check   the linter
# make test-emulated   the GPU's tests on an emulated CUDA device: needs pygpu, no GPU
# make kernels    compile every kernel with NVRTC for the cards that launch it, and print registers and spills: needs no GPU
# make memcheck   the ops' GPU tests under compute-sanitizer (CUDA's), four at a time
# make bench   time the ops on a GPU and on the CPU, and make the tables in benchmarks/; wants TORCH_PYTHON=python3, an
#              interpreter that has PyTorch
# make clean   remove what the others made
#
# Each makes what it needs, in .venv. PYTHON chooses the interpreter for it, 3.8 to 3.11.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV_PYTHON = .venv/bin/python
# Debian's pygpu, built for Debian's Python: usable from a .venv of the same version.
DEBIAN_PYGPU = /usr/lib/python3/dist-packages/pygpu

TESTS = tests

GPU_OP_TESTS = test_filter_acts.py:test_filter_acts_gpu test_filter_acts.py:test_img_acts_gpu \
  test_filter_acts.py:test_weight_acts_gpu test_pool.py:test_gpu \
  test_stochastic_pool.py:test_gpu test_probabilistic_max_pooling.py:test_gpu \
  test_response_norm.py:test_gpu test_layout.py:test_gpu test_fused_acts.py:test_gpu test_fused_acts.py:test_grad_gpu

.PHONY: lenet test test-emulated kernels check memcheck bench clean

lenet: .venv/installed
	$(VENV_PYTHON) examples/lenet.py $(LENET)

test: .venv/installed
	$(VENV_PYTHON) -m nose $(TESTS)

test-emulated: .venv/installed
	PYTHON=$(VENV_PYTHON) tests/cuda_emulator/suite

# The release of NVRTC that goes with CUDA 13.0's ptxas: a newer one writes PTX that it does not read.
kernels: .venv/installed
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check 'nvidia-cuda-nvrtc<13.1'
	$(VENV_PYTHON) -m tests.compile_kernels $(CAPABILITIES)

check: .venv/installed
	$(VENV_PYTHON) -m ruff check .

# preallocate=-1: every array gets an allocation of its own, so that an access past its end is seen. Compute-sanitizer
# itself may hang in cuMemFree, on a lock of the driver with the GPU idle: a run of ten minutes is killed and tried again.
memcheck: .venv/installed
	printf '%s\n' $(GPU_OP_TESTS) | \
	  CONVNET_OPS_REQUIRE_GPU=1 THEANO_FLAGS="gpuarray.preallocate=-1,$$THEANO_FLAGS" xargs -P 4 -I TEST sh -c '\
	  for attempt in 1 2 3 4 5; do \
	    timeout 600 compute-sanitizer --tool memcheck --error-exitcode 9 $(VENV_PYTHON) -m nose tests/TEST; \
	    status=$$?; [ $$status = 124 ] || break; echo "TEST: compute-sanitizer hung; once more"; \
	  done; exit $$status'

bench: .venv/installed
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[gpu]'
	$(VENV_PYTHON) -m benchmarks.conv benchmarks/results/conv.json \
	  --torch-python '$(or $(TORCH_PYTHON),$(error bench: name a Python that has PyTorch in TORCH_PYTHON))'
	$(VENV_PYTHON) -m benchmarks.table benchmarks/results/conv.json benchmarks/README.md
	$(VENV_PYTHON) -m benchmarks.table benchmarks/results/conv.json benchmarks/README.md ours
	$(VENV_PYTHON) -m benchmarks.chart benchmarks/results/conv.json benchmarks/results/conv.svg
	for device in cuda cpu; do \
	  for bench in networks swapped; do \
	    $(VENV_PYTHON) -m benchmarks.$$bench benchmarks/results/$${bench}_$$device.json --device $$device && \
	    $(VENV_PYTHON) -m benchmarks.table benchmarks/results/$${bench}_$$device.json benchmarks/README.md || exit 1; \
	  done; \
	  $(VENV_PYTHON) -m benchmarks.memory_ops benchmarks/results/memory_ops_$$device.json --device $$device \
	    $(if $(TORCH_PYTHON),--torch-python '$(TORCH_PYTHON)') && \
	  $(VENV_PYTHON) -m benchmarks.table benchmarks/results/memory_ops_$$device.json benchmarks/README.md || exit 1; \
	done

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
	rm -rf tests/cuda_emulator/build .venv build dist *.egg-info .hypothesis .ruff_cache lenet-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
