# A page's text. What guests and servers have said is in it: it is text, not Markdown, HTML or a row of a table.
def cell:
  gsub("&"; "&amp;") | gsub("<"; "&lt;") | gsub(">"; "&gt;")
  | gsub("(?<sign>[|`*_~\\[\\]\\\\!#@])"; "&#\(.sign | explode[0]);") | gsub("\r?\n"; "<br>");
def row: "| " + join(" | ") + " |";
def rule: "|" + ("---|" * length);
