#!/bin/bash
# doctor_test.sh BIN SOURCE FOLDER DRIVER: what pimoe doctor tells of two GPUs, on stand-ins for the driver and NVML in DRIVER
. "$2/tests/cli/cli_lib.sh"
export LD_LIBRARY_PATH=$4${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
expect 0 "$1/pimoe" doctor
prints "cuda0: Fake 0, sm_90, 1000 multiprocessors, 85.9 GB of memory (84.8 GB free), link gen 5 x8, 1400 of 1980 MHz, 124 of 700 W, 41 C"
prints "2, the driver speaks CUDA 13.0"
prints "cublaslt: 13.1.0, makes dense products"
prints "cuda1: its link has 8 of 16 lanes"
expect 0 "$1/pimoe" doctor --json
claims devices.0.kind=cpu devices.1.name=cuda0 devices.1.arch=sm_90 devices.1.watts=123.5 devices.2.watts=0 devices.1.celsius=41 devices.2.celsius=43 \
    devices.2.link.width_most=16 devices.2.bus=0000:02:00.0 devices.2.available=84825604096
PIMOE_CUBLASLT=/nowhere/libcublasLt.so expect 0 "$1/pimoe" doctor
prints "there is no cuBLASLt (/nowhere/libcublasLt.so"
# without NVML, with one that is none, and with one that doesn't start
mkdir -p driver
ln -sf "$4/libcuda.so.1" driver/
LD_LIBRARY_PATH=$PWD/driver expect 0 "$1/pimoe" doctor
prints "nvml: libnvidia-ml.so.1 is not there: clocks, power and temperature are not known"
prints "cuda1: Fake 1, sm_90, 1000 multiprocessors, 85.9 GB of memory"
ln -sf "$4/libcuda.so.1" driver/libnvidia-ml.so.1
LD_LIBRARY_PATH=$PWD/driver expect 0 "$1/pimoe" doctor
prints "nvml: libnvidia-ml.so.1 is too old"
PM_FAKE_NVML=broken expect 0 "$1/pimoe" doctor
prints "nvml: libnvidia-ml.so.1 could not be started"
finish
