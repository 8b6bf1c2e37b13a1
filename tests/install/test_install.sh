#!/bin/bash
# usage: test_install.sh BUILD SOURCE WORK
# Installs BUILD, moves what was installed (nothing may remember where it was), builds samples/digits with
# CMake against it, runs it, and uses header and library from C++ and through pkg-config.
set -euo pipefail
build=$1 source=$2 work=$3
cmake=${CMAKE:-cmake} cc=${CC:-cc} cxx=${CXX:-c++} libdir=${LIBDIR:-lib}
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work/src"
cd "$work"
unset CFLAGS CXXFLAGS LDFLAGS DESTDIR CMAKE_PREFIX_PATH PKG_CONFIG_PATH

fail() {
    echo "install: $*" >&2
    exit 1
}
quietly() { # its output only when it fails
    "$@" >log 2>&1 || {
        cat log >&2
        fail "$*"
    }
}

quietly "$cmake" --install "$build" --prefix "$work/first"
mv first prefix
for tool in pimoec pimoe pimoe-opt; do
    [ "$("$prefix/bin/$tool" --version | head -n 1 | cut -d' ' -f1)" = $tool ] || fail "$tool --version"
    [ -s "$prefix/share/man/man1/$tool.1" ] || fail "no manual of $tool"
    [ -s "$prefix/share/bash-completion/completions/$tool" ] || fail "no bash completion of $tool"
    [ -s "$prefix/share/zsh/site-functions/_$tool" ] || fail "no zsh completion of $tool"
done
for header in "$source"/include/pm/*.h; do
    cmp -s "$header" "$prefix/include/pm/$(basename "$header")" || fail "$(basename "$header") is not installed"
done
if grep -rIlF -e "$work/first" -e "$build" "$prefix"; then
    fail "these name the folder of the build or of the installation"
fi

# The sample by CMake, in a copy, so that its model can be touched.
cp -r "$source/samples/digits" src/digits
quietly "$cmake" -S src/digits -B digits -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS="-std=c11 -Wall -Wextra -Wpedantic -Werror"
quietly "$cmake" --build digits
digits/digits src/digits/samples.txt >said
cat said
[ "$(wc -l <said)" -eq 1 ] || fail "the sample says more than a line"
percent=$(sed -n 's/^[0-9]* of 500 right, accuracy \([0-9.]*\) %$/\1/p' said)
awk -v p="${percent:-0}" 'BEGIN { exit !(p >= 95 && p <= 100) }' || fail "accuracy is below 95 %"
needs=$(ldd digits/digits | grep -vE 'libc\.so|libm\.so|ld-linux|vdso' || true)
[ -z "$needs" ] || fail "the sample needs more than libc and libm: $needs"
if digits/digits src/digits/main.c 2>said; then
    fail "a file without digits is read as digits"
fi
grep -q 'main.c:1: not a digit' said || fail "the sample does not say where its input is wrong"

# Made again when the model is newer or pimoec is, and only then.
library=digits/pimoe/digits_model/libdigits.a
[ -s "$library" ] || fail "$library is not there"
made() { stat -c %Y.%y "$library"; }
for newer in "" src/digits/digits.onnx "$prefix/bin/pimoec"; do
    before=$(made)
    [ -z "$newer" ] || touch "$newer"
    quietly "$cmake" --build digits
    if [ -z "$newer" ]; then
        [ "$before" = "$(made)" ] || fail "the model is compiled again though nothing changed"
    else
        [ "$before" != "$(made)" ] || fail "the model is not compiled again when $newer is newer"
    fi
done

# The same from C++, and what the compiler needs to know through pkg-config.
export PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig
pkg-config --exists pimoe || fail "pkg-config does not find pimoe"
[ "$(pkg-config --modversion pimoe)" = "$("$prefix/bin/pimoec" --version | head -n 1 | awk '{print $2}')" ] ||
    fail "pkg-config and pimoec have other versions"
read -ra cflags <<<"$(pkg-config --cflags pimoe)"
read -ra libs <<<"$(pkg-config --libs pimoe)"
echo '#include <pm/runtime.h>
int main(void) { return sizeof(pm_session_options) == 0; }' >header.c
quietly "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "${cflags[@]}" header.c -o header
echo '#include <pm/runtime.h>
#include <pm/compiler.h>
int main() { return 0; }' >header.cpp
quietly "$cxx" -std=c++17 -Wall -Wextra -Wpedantic -Werror "${cflags[@]}" header.cpp -o header
quietly "$cxx" -std=c++17 -Wall -Wextra -Wpedantic -Werror -Idigits/pimoe/digits_model "${cflags[@]}" \
    "$source/tests/install/uses_header.cpp" "$library" "${libs[@]}" -o uses-header
./uses-header || fail "the library gives no distribution from C++"

# A project without C.
mkdir src/plus
cp "$source/tests/install/uses_header.cpp" src/plus
cat >src/plus/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(plus LANGUAGES CXX)
find_package(pimoe REQUIRED)
pimoe_add_model(digits MODEL ../digits/digits.onnx)
add_executable(plus uses_header.cpp)
target_link_libraries(plus digits)
END
quietly "$cmake" -S src/plus -B plus -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_COMPILER="$cxx"
quietly "$cmake" --build plus
plus/plus || fail "the library gives no distribution in a C++ project"

# The compiler as a library, through pkg-config and CMake.
read -ra flags <<<"$(pkg-config --cflags --libs pimoe-compiler) ${SANITIZE:+-fsanitize=$SANITIZE}"
quietly "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "$source/tests/install/uses_compiler.c" "${flags[@]}" \
    -Wl,-rpath,"$prefix/$libdir" -o uses-compiler
quietly ./uses-compiler src/digits/digits.onnx compiled
./compiled --help >log || fail "the executable that the library made does not run"
[ ! -e nothing ] || fail "the library leaves output of what is no model"
shown=$(nm -D --defined-only "$prefix/$libdir/libpimoe-compiler.so" | awk '{print $3}' | grep -v '^__\(asan\|odr_asan\|gcov\|sanitizer\|ubsan\)')
[ "$shown" = pm_compile ] || fail "libpimoe-compiler.so shows $shown"
mkdir src/compiler
cp "$source/tests/install/uses_compiler.c" src/compiler
cat >src/compiler/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(compiler LANGUAGES C)
find_package(pimoe REQUIRED)
add_executable(uses uses_compiler.c)
target_link_libraries(uses pimoe::compiler)
END
quietly "$cmake" -S src/compiler -B compiler -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS="${SANITIZE:+-fsanitize=$SANITIZE}"
quietly "$cmake" --build compiler
quietly compiler/uses src/digits/digits.onnx compiled-by-cmake
cmp -s compiled compiled-by-cmake || fail "two compilations differ"

# Two targets of one folder, a subfolder, options; and words that are wrong.
mkdir -p src/two/sub
cp src/digits/main.c src/digits/digits.onnx src/two/sub
cat >src/two/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(two LANGUAGES C)
find_package(pimoe 0.1 REQUIRED)
add_subdirectory(sub)
add_executable(other sub/main.c)
target_link_libraries(other digits)
if(WRONG)
  pimoe_add_model(wrong ${WRONG})
endif()
END
cat >src/two/sub/CMakeLists.txt <<'END'
pimoe_add_model(digits MODEL digits.onnx TARGET x86-64-v3 QUANTIZE bf16 ENTRY main OPTIONS -O 1 DEPENDS main.c)
pimoe_add_model(answers MODEL ../sub/digits.onnx SYMBOL digits)
add_executable(one main.c)
target_link_libraries(one PRIVATE answers)
END
quietly "$cmake" -S src/two -B two -G "Unix Makefiles" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc"
quietly "$cmake" --build two --parallel 2
[ "$(two/sub/one src/digits/samples.txt)" = "$(digits/digits src/digits/samples.txt)" ] || fail "two models say other things"
two/other src/digits/samples.txt | grep -q '4[7-9][0-9] of 500' || fail "products in bf16 read less than 470 digits"
refused() { # words, what is said about them
    if "$cmake" -S src/two -B two "-DWRONG=$1" >log 2>&1; then
        fail "pimoe_add_model takes $1"
    fi
    tr -s '\n ' ' ' <log | grep -qF "$2" || {
        cat log >&2
        fail "$1: does not say: $2"
    }
}
refused "TARGET;native" "MODEL is missing"
refused "MODEL;a.onnx;QUANTISE;bf16" "what is QUANTISE;bf16?"
refused "MODEL;a.onnx;SYMBOL;a-b" "a-b is no name in C"
