/// What tests ask of the stand-in for cuBLASLt (fake_libcublaslt.c).
#ifndef PM_TESTS_FAKE_LIBCUBLASLT_H
#define PM_TESTS_FAKE_LIBCUBLASLT_H

typedef struct fake_cublaslt {
    long fail_at;   ///< the call of this number (from 1) fails; 0: none
    long calls;     ///< made so far; those that give something back aren't counted and don't fail
    long live;      ///< objects that were made and not given back
    long products;  ///< that a stream was given
    int no_choice;  ///< it finds no algorithm for anything
} fake_cublaslt;

/// dlsym(library, "pm_fake_cublaslt").
extern fake_cublaslt pm_fake_cublaslt;

#endif
