# results.json as a page: a table of scenarios, and why those that failed did.
def mark: {"passed": "✅ passed", "failed": "❌ failed", "flaky": "⚠️ flaky", "skipped": "⏭️ skipped"}[.] // .;
def cell: gsub("\\|"; "\\|") | gsub("\n"; "<br>");

"### podwire: " + ([.scenarios[].outcome] | group_by(.) | map("\(length) \(.[0])") | join(", ")),
"",
"Kubernetes \(.kubernetes) on \(.nodes) nodes, guests under \(.accelerator)" + (if .shard then ", part \(.shard) of the scenarios" else "" end) + ".",
((.unsettled_stages // [])[] | "", "**" + cell + "**"),
(if .error then "", "**Ended early:** " + (.error | cell) else empty end),
"",
"| scenario | cluster | result | seconds |",
"|---|---|---|---|",
(.scenarios[] | "| \(.name) | \(.cell) | \(.outcome | mark) | \(.seconds | floor) |"),
(.scenarios[], .harness_tests[] | select(.outcome == "failed") | "", "**\(.name)**: " + ((.reason // "") | cell))
