#!/bin/sh
# The library never prints, exits or aborts, exports the C ABI alone, and no file compiled for one instruction set leaves
# inline functions that the linker could pick for generic code, or calls a function for a square root.
# usage: check_symbols.sh LIBRARY NM OBJECTS
set -eu
library=$1
nm=$2
objects=$3
status=0

forbidden='^(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror|exit|_exit|quick_exit|abort|__printf_chk|__fprintf_chk|__assert_fail|_ZSt4cout|_ZSt4cerr|_ZSt4clog)(@|$)'
for object in $(echo "$objects" | tr ';' ' '); do  # not the library: the CUDA runtime inside it has an exit of its own
    found=$("$nm" --undefined-only "$object" | awk '{print $NF}' | grep -E "$forbidden" || true)
    if [ -n "$found" ]; then
        echo "$object refers to: $found"
        status=1
    fi
done

extra=$("$nm" -D --defined-only "$library" | awk '{print $NF}' | grep -v '^trm_' || true)
if [ -n "$extra" ]; then
    echo "the library exports more than the C ABI: $extra"
    status=1
fi

checked=0
for object in $(echo "$objects" | tr ';' ' '); do
    case $object in
        *isa_*)
            checked=$((checked + 1))
            slow=$("$nm" --undefined-only "$object" | awk '{print $NF}' | grep -E '^sqrtf?$' || true)
            if [ -n "$slow" ]; then
                echo "$object calls $slow: some flag has brought back what -fno-math-errno takes away"
                status=1
            fi
            weak=$("$nm" "$object" | grep -E ' [WVu] ' || true)
            if [ -n "$weak" ]; then
                echo "$object has weak symbols: $weak"
                status=1
            fi
            ;;
    esac
done
if [ "$checked" -eq 0 ]; then
    echo "no kernel object was given"
    status=1
fi
echo "checked $library and $checked kernel objects"
exit $status
