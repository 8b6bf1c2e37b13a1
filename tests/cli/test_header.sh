#!/bin/bash
# The generated header of models whose names are none in C, or meet those of the header: it compiles as C and as C++,
# and names of a model cannot put text of their own into it.
. "$(dirname "$0")/cli_lib.sh"
cc=${CC:-cc}
cxx=${CXX:-c++}
compiles() { # NAME.h, with a use of it
    expect 0 "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror -I. -fsyntax-only use.c
    if command -v "$cxx" >/dev/null; then
        cp use.c use.cpp
        expect 0 "$cxx" -std=c++17 -Wall -Wextra -Wpedantic -Werror -I. -fsyntax-only use.cpp
    fi
}

# Words of C, names that become alike, names of the function's own things, an entry with the name of a function.
cat >words.pm <<'END'
module "a\x0A#error out of the comment\\" {
  symbol "int" in [1, 64]
  symbol "*/ }" in [1, 64]
  entry open(%inputs: f32["int"], %a.b: f32["int"], %a_b: f32["int"], %pm_session: f32["*/ }"], %3: f32["int"])
      -> (inputs: %s, class: %q, "\x0A#error": %r) {
    %t = add(%a.b, %a_b)
    %s = add(%inputs, %t)
    %q = neg(%pm_session)
    %r = add(%s, %3)
  }
  entry "a*/ b"(%x: f32["int"]) -> (x: %y) {
    %y = neg(%x)
  }
  entry a___b(%x: f32["int"]) -> ("": %y) {
    %y = neg(%x)
  }
}
END
expect 0 "$pimoec" words.pm --emit=header --symbol=words -o words.h
if grep -q '^ *#error' words.h; then fail "a name of the model leaves its comment"; fi
cat >use.c <<'END'
#include "words.h"
pm_status use(pm_session *s, const float *in, float *out);
pm_status use(pm_session *s, const float *in, float *out)
{
    if (words_a___b(s, 4, in, out) != PM_OK || words_a___b_2(s, 4, in, out) != PM_OK)
        return PM_ERR_INVALID;
    return words_open_2(s, 4, 2, in, in, in, in, in, out, out, out);
}
END
compiles

# Sizes that are expressions of the inputs', and those that are not.
cat >sizes.pm <<'END'
module "sizes" {
  symbol N in [1, 64]
  symbol M in [1, 64]
  entry both(%x: f32[N], %z: f32[N]) -> (y: %y) {
    %y = concat(%x, %z) {axis = 0} : f32[2*N]
  }
  entry hidden(%x: f32[M + 1, 2]) -> (y: %y) {
    %y = neg(%x)
  }
}
END
expect 0 "$pimoec" sizes.pm --emit=header -o sizes.h
grep -q 'sizes_both(pm_session \*session, int64_t N, const float \*x, const float \*z, float \*y)' sizes.h ||
    fail "sizes.h lacks sizes_both"
grep -q '^// Entry `hidden` has sizes that do not follow' sizes.h || fail "sizes.h does not say why it lacks sizes_hidden"
echo '#include "sizes.h"' >use.c
echo 'int unused;' >>use.c
compiles
finish
