#!/usr/bin/env python3
"""Does lint.py find what it should, and only that? A tree with one fault of each kind, beside things that
look like faults, is written to a temporary folder. Usage: lint_test.py"""
import os
import sys
import tempfile

from lint import Lint


def header(guard, body=""):
    return f"#ifndef {guard}\n#define {guard}\n{body}#endif\n"


def function(name, n):
    return f"int {name}(void)\n{{\n" + "    step();\n" * (n - 2) + "}\n"


TREE = {
    "include/pm/api.h": header("PM_API_H", '#include "base/low.h"\n'),  # layers
    "base/low.h": "/// A comment first.\n" + header("PM_BASE_LOW_H"),
    "base/low.c": '#include "base/low.h"\n#include "ir/mid.h"\n#include <stdio.h>\n',  # layers
    "base/pair_a.h": header("PM_BASE_PAIR_A_H", '#include "base/pair_b.h"\n'),
    "base/pair_b.h": header("PM_BASE_PAIR_B_H", '#include "base/pair_a.h"\n'),  # cycles
    "ir/mid.h": header("PM_IR_MID_H", '#include "base/low.h"\n'),
    "ir/mid.c": '#include "mid.h"\n#include "passes/pass.h"\n',  # root, layers
    "passes/pass.h": header("PM_PASSES_PASS_H"),
    "passes/pass.c": '#include "passes/pass.h"\n#include "ir/mid.h"\n#include "frontend/front.h"\n',  # layers
    "frontend/front.h": header("PM_FRONTEND_FRONT_H"),
    "frontend/front.c": '#include "codegen/gen.h"\n',  # layers
    "codegen/gen.h": header("PM_CODEGEN_GEN_H"),
    "codegen/gen.c": '#include "runtime/runtime_abi.h"\n#include "runtime/rt.h"\n',  # layers
    "codegen/mlir/lower.c": '#include "mlir-c/IR.h"\n#include <llvm-c/Core.h>\n',
    "codegen/cpu/cpu.c": '#include "mlir-c/IR.h"\n#include "llvm-c/Core.h"\n',  # llvm
    "codegen/link/shim.cpp": '#include "lld/Common/Driver.h"\n',  # llvm
    "runtime/runtime_abi.h": header("PM_RUNTIME_ABI_H"),
    "runtime/rt.h": header("PM_RUNTIME_RT_H", '#include "pm/api.h"\n#include "pm/nowhere.h"\n'),  # root
    "runtime/rt.c": '#include "base/low.h"\n#include "ir/mid.h"\n',  # layers
    "tools/tool.c": '#include "ir/mid.h"\n#include "runtime/rt.h"\n#include "tests/helper.h"\n',  # layers
    "tests/helper.h": header("PM_TESTS_HELPER_H", '#include "tools/other.h"\n'),
    "tools/other.h": header("PM_OTHER_H"),
    "tools/no_guard.h": "int x;\n",  # guard
    "tools/ill_named.h": header("PM_PIMOE_ILL_NAMED_H"),  # guard
    "tools/cli/twin.h": header("PM_TWIN_H"),
    "tests/twin.h": header("PM_TWIN_H"),  # guard, names
    "tools/two_guards.h": "#ifndef PM_TWO_GUARDS_H\n#define PM_TWO_GUARD_H\n#endif\n",  # guard
    "tools/README.md": "# Tools\n",
    "README.md": "# A tree\n[a](tools/README.md#tools) [b](tools) [c](https://x.y/z) `[d](nowhere)` [e](#a-tree)\n"
    "[f](gone.md) [g](tools/README.md#none)\n```\n[h](gone.md)\n```\n",  # links, twice
    "tools/long.c": "int x;\n" * 1001,  # length
    "tools/just_right.c": "int x;\n" * 1000,
    "tools/functions.c": function("fits", 80) + function("too_long", 81) + "struct s {\n" + "int x;\n" * 90 + "};\n",
    "scripts/tool.py": "print()\n",  # python
    "tests/tool_test.py": "print()\n",
    "scripts/words": "cd /wo" "rk/main\n$a/wo" "rk ../wo" "rk\ncat ../sha" "red/x\nhttps://py" "pi.org/x\n",  # words
    "scripts/plain": "#!/bin/sh\n",  # scripts
    "docs/excused.py": "print()\n",
    "docs/excused_badly.py": "print()\n",
    "tests/lint/exceptions.txt": "# rule file reason\npython docs/excused.py it must be here\npython docs/excused_b* no\n"
    "length tools/no*.c was long once, is short now\n",
}

EXPECTED = """
base/low.c:2 layers
base/pair_b.h:3 cycles
codegen/cpu/cpu.c:1 llvm
codegen/gen.c:2 layers
codegen/link/shim.cpp:1 llvm
frontend/front.c:1 layers
include/pm/api.h:3 layers
ir/mid.c:1 root
ir/mid.c:2 layers
passes/pass.c:3 layers
README.md:3 links
README.md:3 links
runtime/rt.c:2 layers
runtime/rt.h:4 root
scripts/plain:1 scripts
scripts/tool.py:1 python
scripts/words:1 words
scripts/words:3 words
scripts/words:4 words
tests/lint/exceptions.txt:3 exceptions
tests/lint/exceptions.txt:4 exceptions
tools/cli/twin.h:1 names
tools/cli/twin.h:1 guard
tools/functions.c:83 function
tools/ill_named.h:1 guard
tools/long.c:1001 length
tools/no_guard.h:1 guard
tools/tool.c:3 layers
tools/two_guards.h:1 guard
"""


def main():
    with tempfile.TemporaryDirectory() as root:
        for path, text in TREE.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        said = Lint(root).run()
    found = sorted(f"{place} {rule.split(']')[0]}" for place, rule in (line.split(": [", 1) for line in said))
    expected = sorted(EXPECTED.split("\n")[1:-1])
    for line in sorted(set(found) | set(expected)):
        if found.count(line) != expected.count(line):
            print(f"{line}: found {found.count(line)} times, expected {expected.count(line)}")
    return found != expected


sys.exit(main())
