# bash completion of pimoec, pimoe-opt and pimoe; made by pimoe-cli-docs from tools/cli/cli_options.c
_pimoe_word() {
    # the word under the cursor and the option whose value it is: bash cuts words at =
    cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]}
    if [[ $cur == = ]]; then
        cur=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}
    fi
}

_pimoec() {
    local cur option
    _pimoe_word
    {
        case $option in
        -o|--output) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --emit) COMPREPLY=($(compgen -W 'exe obj lib shared header ir mlir llvm asm ptx cubin' -- "$cur")); return ;;
        --entry) return ;;
        --symbol) return ;;
        --target) COMPREPLY=($(compgen -W 'native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids sm_80 sm_89 sm_90a sm_100a emu' -- "$cur")); return ;;
        -O) COMPREPLY=($(compgen -W '0 1 2 3' -- "$cur")); return ;;
        --quantize) COMPREPLY=($(compgen -W 'none bf16 int8 int4' -- "$cur")); return ;;
        --calibrate) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --place) return ;;
        --report) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --passes) return ;;
        --print-ir-before) COMPREPLY=($(compgen -W 'all' -- "$cur")); return ;;
        --print-ir-after) COMPREPLY=($(compgen -W 'all' -- "$cur")); return ;;
        --stop-after) return ;;
        --pass-limit) return ;;
        --verify) COMPREPLY=($(compgen -W 'each' -- "$cur")); return ;;
        --dump-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--output --emit --entry --symbol --target -O --quantize --calibrate --place --report --json --time-passes --quiet --verbose --passes --print-ir-before --print-ir-after --print-ir-all --print-ir-changed --stop-after --pass-limit --verify --stats --dump-dir --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
    }
}

_pimoe_opt() {
    local cur option
    _pimoe_word
    {
        case $option in
        -o|--output) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --files) COMPREPLY=($(compgen -d -- "$cur")); return ;;
        --passes) return ;;
        -O) COMPREPLY=($(compgen -W '0 1 2 3' -- "$cur")); return ;;
        --quantize) COMPREPLY=($(compgen -W 'none bf16' -- "$cur")); return ;;
        --place) return ;;
        --devices) return ;;
        --vector-floats) COMPREPLY=($(compgen -W '8 16' -- "$cur")); return ;;
        --print-ir-before) COMPREPLY=($(compgen -W 'all' -- "$cur")); return ;;
        --print-ir-after) COMPREPLY=($(compgen -W 'all' -- "$cur")); return ;;
        --dump-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
        --stop-after) return ;;
        --pass-limit) return ;;
        --verify) COMPREPLY=($(compgen -W 'each' -- "$cur")); return ;;
        --break-on-op) return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--output --files --passes -O --quantize --place --devices --vector-floats --print-ir-before --print-ir-after --print-ir-all --print-ir-changed --dump-dir --stop-after --pass-limit --verify --time-passes --stats --break-on-op --json --list-passes --markdown --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
    }
}

_pimoe() {
    local cur option
    _pimoe_word
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W 'inspect check run bench doctor --help --version' -- "$cur"))
        return
    fi
    case ${COMP_WORDS[1]} in
    inspect)
        case $option in
        --place) return ;;
        --target) COMPREPLY=($(compgen -W 'native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids sm_80 sm_89 sm_90a sm_100a emu' -- "$cur")); return ;;
        --sharding) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--ops --place --target --sharding --json --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    check)
        case $option in
        --target) COMPREPLY=($(compgen -W 'native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids sm_80 sm_89 sm_90a sm_100a emu' -- "$cur")); return ;;
        --quantize) COMPREPLY=($(compgen -W 'none bf16 int8 int4' -- "$cur")); return ;;
        -O) COMPREPLY=($(compgen -W '0 1 2 3' -- "$cur")); return ;;
        --place) return ;;
        --in) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --want) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        --rtol) return ;;
        --atol) return ;;
        --entry) return ;;
        --threads) return ;;
        --timeout) return ;;
        --keep) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--target --quantize -O --place --in --want --rtol --atol --entry --threads --timeout --keep --json --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    run)
        case $option in
        --target) COMPREPLY=($(compgen -W 'native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids sm_80 sm_89 sm_90a sm_100a emu' -- "$cur")); return ;;
        --quantize) COMPREPLY=($(compgen -W 'none bf16 int8 int4' -- "$cur")); return ;;
        -O) COMPREPLY=($(compgen -W '0 1 2 3' -- "$cur")); return ;;
        --place) return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--target --quantize -O --place --no-cache --verbose --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    bench)
        case $option in
        --target) COMPREPLY=($(compgen -W 'native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids sm_80 sm_89 sm_90a sm_100a emu' -- "$cur")); return ;;
        --quantize) COMPREPLY=($(compgen -W 'none bf16 int8 int4' -- "$cur")); return ;;
        -O) COMPREPLY=($(compgen -W '0 1 2 3' -- "$cur")); return ;;
        --place) return ;;
        --entry) return ;;
        --shape) return ;;
        --repeat) return ;;
        --threads) return ;;
        --format) COMPREPLY=($(compgen -W 'text md csv json' -- "$cur")); return ;;
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--target --quantize -O --place --entry --shape --repeat --threads --compare --format --json --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    doctor)
        case $option in
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--json --help --version' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    esac
}

complete -o filenames -F _pimoec pimoec
complete -o filenames -F _pimoe_opt pimoe-opt
complete -o filenames -F _pimoe pimoe
