#!/usr/bin/env bash
# The rows of those tables, as SQL: the same as tests/bench/voltdb/Calls.java puts.
set -euo pipefail
awk '
function letters(count,   text) { while (length(text) < count) text = text "x"; return text }
# Rows of a table, so many in one statement.
function row(table, values) {
    if (table != current || ++inside > 500) { flush(); printf "INSERT INTO %s VALUES ", table; current = table; inside = 1 }
    printf "%s(%s)", (inside > 1 ? "," : ""), values
}
function flush() { if (current != "") print ";"; current = "" }
BEGIN {
    hundred = letters(100); forty = letters(40); dist = letters(24); data = letters(300)
    for (id = 0; id < 200000; id++) row("kv", id ",\047" hundred "\047")
    for (id = 0; id < 100000; id++) row("accounts", id ",1000000")
    for (id = 1; id <= 6; id++) row("contestants", id ",\047contestant " id "\047")
    for (code = 200; code < 1000; code++) row("area_codes", code (code % 2 ? ",\047CA\047" : ",\047NY\047"))
    for (id = 1; id <= 100000; id++) row("item", id ",\047item " id "\047," 1 + id % 100 ",\047" forty "\047")
    for (w = 1; w <= 4; w++) row("warehouse", w ",\047warehouse\047,0.1,0")
    for (w = 1; w <= 4; w++) for (d = 1; d <= 10; d++) row("district", w "," d ",0.1,0,1")
    for (w = 1; w <= 4; w++) for (d = 1; d <= 10; d++) for (c = 1; c <= 3000; c++)
        row("customer", w "," d "," c ",\047last " c "\047,\047GC\047,0.1,-10,\047" data "\047")
    for (w = 1; w <= 4; w++) for (id = 1; id <= 100000; id++)
        row("stock", w "," id "," 10 + id % 91 ",\047" dist "\047,0,0,\047" forty "\047")
    flush()
}'
