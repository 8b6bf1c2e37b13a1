/// Compiled templates in a folder, as pimoe-gpu-kernels --write leaves them: NAME.sm_90a.cubin, NAME.sm_80.ptx.
#ifndef PM_TOOLS_GPU_IMAGES_H
#define PM_TOOLS_GPU_IMAGES_H

/// The image that suits a GPU of compute capability sm / 10.sm % 10 best, with a NUL behind it, to be freed; NULL: there
/// is none. In the folder "fake" every name has one: the stand-in for the driver takes any.
char *pm_gpu_image(const char *folder, const char *name, int sm);

#endif
