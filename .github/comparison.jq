# compare.json as a page: the sentence, the scenarios that differ and why, and the numbers.
include "markdown";
def mark: {"broke": "❌ broke", "recovered": "✅ recovered", "now_and_then": "⚠️ differs now and then", "undecided": "❔ undecided", "only_base": "only on base", "only_head": "only on head"}[.] // .;
def answer: {"worse": "❌ worse", "better": "✅ better", "undecided": "❔ undecided", "within": "within the margin"}[.] // .;
def verdicts:
  (map(select(. == "passed")) | length) as $passed
  | (map(select(. == "failed")) | length) as $failed
  | if $passed + $failed == 0 then "none" else "passed \($passed) of \($passed + $failed)" end;
def value($unit): if . == null then "not measured" else "\(. * 1000 | round / 1000) \($unit)" | rtrimstr(" ") end;
def ratio: if . == null then "-" else "\(. * 100 | round / 100)" end;
def interval: if . == null then "-" else "\(.[0] | ratio) to \(.[1] | ratio)" end;
def chance: if . == null then "-" elif . < 0.001 then "&lt;0.001" else "\(. * 1000 | round / 1000)" end;
# What was not measured: once, where the same is to be told of both sides.
def told:
  reduce .[] as $it ([];
    ($it | del(.side)) as $what
    | (map(del(.side)) | index([$what])) as $before
    | if $before == null then . + [$it] else .[$before].side += " and \($it.side)" end);
def side($name): "- \($name): " + (([.revision, .tested // (.flags | join(" "))] | map(select(. // "" != "")) | join("; ")) | if . == "" then "what is tested without any flags" else . end | cell);

# What passes on both sides, or fails on both, says nothing about the change.
[.scenarios[] | select(.difference | IN("fails_on_both", "passes_on_both", "neither") | not)] as $shown
| any(.scenarios[]; .part) as $merged
| "### podwire: " + (.sentence | cell),
"",
(.base | side("base")),
(.head | side("head")),
(if .part then "", "Part \(.part.shard) of the scenarios." else empty end),
((.base, .head) | .unsettled_stages // [] | .[] | "", "**" + cell + "**"),
(if .error then "", "**Ended early:** " + (.error | cell) else empty end),
(if $shown == [] then empty else
  "",
  (["scenario", "cluster", "verdict", "base", "head", if $merged then "part" else empty end] | row, rule),
  ($shown[] | [(.name | cell), (.cluster | cell), (.difference | mark), (.base.runs | verdicts), (.head.runs | verdicts), if $merged then .part // "" else empty end] | row)
end),
($shown[] | . as $it | ("base", "head") | . as $side | $it[$side].reason // empty | "", "**\($it.name | cell), \($side)**: " + cell),
(.numbers // empty | .metrics | if . == [] then empty else
  "",
  (["number", "answer", "base", "head", "ratio", "interval", "p", "pairs"] | row, rule),
  (.[] | .unit as $unit | [(.metric | cell), (.answer | answer), (.base | value($unit)), (.head | value($unit)), (.ratio | ratio), (.interval | interval), (.p | chance), (.pairs | length | tostring)] | row)
end),
(.numbers // empty | .unmeasured | told[] | "", "**\(.metric // .measurement | cell) was not measured on \(.side)**: " + (.reason | cell))
