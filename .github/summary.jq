# results.json as a page: a table of scenarios, and why those that failed did.
include "markdown";
def mark: {"passed": "✅ passed", "failed": "❌ failed", "flaky": "⚠️ flaky", "skipped": "⏭️ skipped"}[.] // .;

# Of several machines' results made one, each scenario says whose it was.
any(.scenarios[]; .part) as $merged
| "### podwire: " + ([.scenarios[].outcome] | group_by(.) | map("\(length) \(.[0])") | join(", ")),
"",
"Kubernetes \(.kubernetes | cell) on \(.nodes) nodes, guests under \(.accelerator | cell)" + (if .shard then ", part \(.shard) of the scenarios" else "" end) + ".",
(.accelerator as $under | .accelerator_reason // empty | "", "Guests run under \($under | cell): " + cell),
(.pod_network // empty | "", "The Pod network: " + cell),
((.pod_images // [])[] | "", "Images of Pods: " + cell),
(if .cluster_dns then "", "Clusters by hand have CoreDNS too." else empty end),
(.node_files // empty | "", "Files over the nodes': " + cell),
((.unsettled_stages // [])[] | "", "**" + cell + "**"),
(if .error then "", "**Ended early:** " + (.error | cell) else empty end),
"",
(["scenario", "cluster", "result", "seconds", if $merged then "part" else empty end] | row, rule),
(.scenarios[] | [(.name | cell), (.cell | cell), (.outcome | mark), (.seconds | floor | tostring), if $merged then .part // "" else empty end] | row),
(.scenarios[], .harness_tests[] | select(.outcome == "failed") | "", "**\(.name | cell)**: " + ((.reason // "") | cell))
