//! What Rust sources say of themselves: public functions, fields and variants, each with the first
//! sentence of its doc comment. A plain reader of lines, for sources as rustfmt leaves them.

/// Something that a source documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// As an author writes it.
    pub(crate) code: String,
    /// The first sentence of its doc comment.
    pub(crate) about: String,
}

impl Item {
    /// Whether it is a function of no type.
    pub(crate) fn is_free(&self) -> bool {
        let name = self.code.split('(').next().unwrap_or_default();
        !name.contains(['.', ':'])
    }
}

/// The public functions: those of types, and free ones, in their order. Those of traits are not among
/// them.
pub(crate) fn functions(source: &str) -> Vec<Item> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    let mut top = Docs::default();
    while let Some(line) = lines.next() {
        if let Some(owner) = owner(line) {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            found.extend(in_block(&body, owner));
            top = Docs::default();
        } else if let Some(item) = top.take(line, "", &mut lines, None) {
            found.push(item);
        }
    }
    found
}

/// The public functions of the type `name` alone, which is `known` to who calls them.
pub(crate) fn functions_of(source: &str, name: &str, known: &str) -> Vec<Item> {
    let mut lines = source.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if owner(line) == Some(name) {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            found.extend(in_block(&body, known));
        }
    }
    found
}

fn in_block(body: &[&str], owner: &str) -> Vec<Item> {
    let mut docs = Docs::default();
    let mut lines = body.iter().copied();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        found.extend(docs.take(line, "    ", &mut lines, Some(owner)));
    }
    found
}

/// The public fields of a structure, `name: Type`.
pub(crate) fn fields(source: &str, name: &str) -> Vec<Item> {
    let field = |code: &str| {
        let code = code.strip_prefix("pub ")?.strip_suffix(',')?;
        Some(without_lifetimes(code))
    };
    members(source, &format!("pub struct {name}"), field)
}

/// The variants of an enumeration, each with the names of its fields: `Way { from, to }`.
pub(crate) fn variants(source: &str, name: &str) -> Vec<Item> {
    let variant = |code: &str| {
        let (name, fields) = match code.split_once('{') {
            Some((name, fields)) => (name, fields),
            None => return Some(without_lifetimes(code.trim_end_matches(','))),
        };
        let names = fields.split(',').filter_map(|it| it.split_once(':'));
        let names: Vec<&str> = names.map(|(name, _)| name.trim()).collect();
        Some(format!("{}{{ {} }}", name, names.join(", ")))
    };
    members(source, &format!("pub enum {name}"), variant)
}

/// What stands in the block that begins so; the lines of each member are joined, and `read`.
fn members(source: &str, head: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Item> {
    let is_head = |line: &&str| {
        let rest = line.strip_prefix(head);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let mut lines = source.lines().skip_while(|line| !is_head(line)).skip(1);
    let mut docs = Docs::default();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == "}" {
            break;
        }
        if docs.notes(line, "    ") {
            continue;
        }
        let mut code = line.trim().to_owned();
        if code.ends_with('{') {
            for line in lines.by_ref().take_while(|line| *line != "    },") {
                if !line.trim().starts_with("//") {
                    code.push_str(line.trim());
                }
            }
        }
        let about = docs.told();
        found.extend(read(&code).map(|code| Item { code, about }));
    }
    found
}

/// The type that a block of functions belongs to; nothing for a trait's.
fn owner(line: &str) -> Option<&str> {
    let head = line.strip_prefix("impl")?.strip_suffix(" {")?;
    if head.contains(" for ") {
        return None;
    }
    let head = match head.strip_prefix('<') {
        Some(generic) => generic.split_once("> ")?.1,
        None => head.trim_start(),
    };
    let end = head.find('<').unwrap_or(head.len());
    Some(&head[..end])
}

/// The doc comment that was read last.
#[derive(Default)]
struct Docs {
    lines: Vec<String>,
    hidden: bool,
}

impl Docs {
    /// Whether the line, with this indentation, belongs to what stands before an item.
    fn notes(&mut self, line: &str, indentation: &str) -> bool {
        let Some(code) = line.strip_prefix(indentation) else {
            return false;
        };
        if let Some(text) = code.strip_prefix("///") {
            self.lines.push(text.trim().to_owned());
            return true;
        }
        self.hidden |= code == "#[doc(hidden)]";
        code.starts_with("#[") || code.starts_with("//")
    }

    fn told(&mut self) -> String {
        let told = first_sentence(&self.lines);
        *self = Self::default();
        told
    }

    /// The public function that begins with this line, if one does.
    fn take<'a>(
        &mut self,
        line: &str,
        indentation: &str,
        lines: &mut impl Iterator<Item = &'a str>,
        owner: Option<&str>,
    ) -> Option<Item> {
        if self.notes(line, indentation) {
            return None;
        }
        let code = line.strip_prefix(indentation)?;
        if code.starts_with([' ', '}']) {
            return None;
        }
        let hidden = self.hidden;
        let about = self.told();
        let function = ["pub fn ", "pub async fn ", "pub const fn "];
        if hidden || !function.iter().any(|it| code.starts_with(it)) {
            return None;
        }
        let mut signature = code.to_owned();
        while !signature.ends_with('{') {
            signature.push(' ');
            signature.push_str(lines.next()?.trim());
        }
        let code = called(&signature, owner)?;
        Some(Item { code, about })
    }
}

/// A doc comment's first sentence, without links.
fn first_sentence(lines: &[String]) -> String {
    let paragraph = lines.iter().take_while(|line| !line.is_empty());
    let text = paragraph.cloned().collect::<Vec<_>>().join(" ");
    let mut sentence = String::new();
    let mut code = false;
    let mut rest = text.chars().peekable();
    while let Some(each) = rest.next() {
        code ^= each == '`';
        sentence.push(each);
        if each == '.' && !code && rest.peek() == Some(&' ') {
            break;
        }
    }
    without_links(&sentence)
}

/// `[`name`]`, and `[`name`](path)`, become `name`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, linked)) = rest.split_once("[`") {
        let Some((name, after)) = linked.split_once("`]") else {
            break;
        };
        plain.push_str(&format!("{before}`{name}`"));
        rest = match after.strip_prefix('(').and_then(|it| it.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    plain + rest
}

/// A signature as its caller sees it: `lab.ask(from: &Party, to: impl Display) -> Ask`. `.await` stands
/// behind one that is waited for, `?` behind one that may fail.
fn called(signature: &str, owner: Option<&str>) -> Option<String> {
    let waits = signature.starts_with("pub async");
    let (_, rest) = signature.split_once("fn ")?;
    let (name, rest) = rest.split_at(rest.find(['<', '('])?);
    let open = rest.find("(")?;
    let close = closing(rest, open)?;
    let parameters: Vec<String> = split(&rest[open + 1..close])
        .into_iter()
        .map(plain)
        .collect();
    let (own, parameters): (Vec<String>, Vec<String>) =
        parameters.into_iter().partition(|it| it.ends_with("self"));
    let rest = rest[close + 1..].trim_end_matches('{').trim();
    let rest = rest.split(" where").next().unwrap_or_default();
    let gives = plain(rest.trim_start_matches("->"));
    let (gives, fails) = match result(&gives) {
        Some(gives) => (gives, "?"),
        None => (gives, ""),
    };
    let whose = match owner {
        Some(owner) if own.is_empty() => format!("{owner}::"),
        Some(owner) => format!("{}.", variable(owner)),
        None => String::new(),
    };
    let gives = gives.replace("Self", owner.unwrap_or("Self"));
    let gives = match gives.as_str() {
        "" | "()" => String::new(),
        gives => format!(" -> {gives}"),
    };
    let awaited = if waits { ".await" } else { "" };
    let parameters = parameters.join(", ");
    Some(format!(
        "{whose}{name}({parameters}){awaited}{fails}{gives}"
    ))
}

/// Where what is opened there is closed.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, each) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match each {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Parameters, at the commas between them.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0_i32, 0);
    let mut parts = Vec::new();
    let mut before = ' ';
    for (at, each) in text.char_indices() {
        match each {
            '(' | '<' | '[' => depth += 1,
            '>' if before == '-' => {}
            ')' | '>' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        before = each;
    }
    parts.push(&text[start..]);
    let parts = parts.into_iter().map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

/// What a result gives when all is well.
fn result(gives: &str) -> Option<String> {
    let inner = gives.strip_prefix("Result<")?.strip_suffix('>')?;
    Some(split(inner).first()?.to_string())
}

/// A type as an author thinks of it.
fn plain(text: &str) -> String {
    let text = without_lifetimes(text.trim());
    let text = text
        .trim_start_matches("mut ")
        .replace("anyhow::Result", "Result");
    ["impl Into<String>", "impl AsRef<str>"]
        .iter()
        .fold(text, |text, it| text.replace(it, "&str"))
}

fn without_lifetimes(text: &str) -> String {
    let without = |text: String, it: &&str| text.replace(it, "");
    ["<'_>", "<'lab>", "'lab ", "'static "]
        .iter()
        .fold(text.to_owned(), without)
}

/// How a value of the type is called: `listed_node`.
fn variable(owner: &str) -> String {
    let mut name = String::new();
    for each in owner.chars() {
        if each.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(each.to_lowercase());
    }
    name
}

/// The first sentence of what a module says of itself.
pub(crate) fn module(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    first_sentence(&lines)
}

/// The lines of a text constant that begins with a line of its own.
pub(crate) fn text(source: &str, name: &str) -> Option<String> {
    let head = format!("const {name}: &str = \"\\\n");
    let (_, rest) = source.split_once(&head)?;
    Some(rest.split_once("\";")?.0.to_owned())
}

/// What the fields of a structure are that its function `new` does not take, `name: value`.
pub(crate) fn defaults(source: &str) -> Vec<(&str, &str)> {
    let body = source.lines().skip_while(|line| !line.contains("fn new("));
    let body = body.skip_while(|line| line.trim() != "Self {").skip(1);
    let fields = body.map_while(|line| line.trim().strip_suffix(','));
    fields.filter_map(|line| line.split_once(": ")).collect()
}

/// A source's items, each with the comment before it, under its name; what stands before the first is
/// under "head".
pub(crate) fn items(source: &str) -> Vec<(String, String)> {
    let mut items = vec![("head".to_owned(), String::new())];
    for paragraph in paragraphs(source) {
        match name(&paragraph) {
            Some(name) => items.push((name, paragraph)),
            None => {
                if let Some((_, text)) = items.last_mut() {
                    if !text.is_empty() {
                        text.push_str("\n\n");
                    }
                    text.push_str(&paragraph);
                }
            }
        }
    }
    items
}

/// What stands between blank lines, where what follows is not indented.
fn paragraphs(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for block in source.trim_end().split("\n\n") {
        match found.last_mut() {
            Some(last) if block.starts_with([' ', '}']) => {
                last.push_str("\n\n");
                last.push_str(block);
            }
            _ => found.push(block.to_owned()),
        }
    }
    found
}

fn name(paragraph: &str) -> Option<String> {
    let line = paragraph
        .lines()
        .find(|line| !line.starts_with("//") && !line.starts_with('#'))?;
    let (_, rest) = [" fn ", "const ", "fn "]
        .iter()
        .find_map(|keyword| line.split_once(keyword))?;
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! Machines and
//! their names. More.

/// Not seen: private.
fn helper() {}

/// So many seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What is broken.
pub enum Fault {
    /// Nothing.
    None,
    /// A node, [`Node`].
    OfNode(&'static str),
    /// A way.
    Way {
        /// Who asks.
        from: Party,
        /// Who answers.
        to: Party,
    },
}

/// A fault, as declared.
#[derive(Debug)]
pub struct Declared {
    /// Its name. It is short.
    pub name: &'static str,
    /// Hidden.
    secret: u32,
    #[serde(default)]
    /// How long.
    pub limit: Duration,
}

impl Declared {
    /// One.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            limit: secs(3),
        }
    }
}

impl fmt::Display for Declared {
    /// Not seen: a trait's.
    pub fn fmt(&self) -> String {
        String::new()
    }
}

impl<'lab> ListedNode<'lab> {
    /// Runs `a. b` on it, see [`Command`](crate::Command). Twice.
    ///
    /// # Errors
    /// Never.
    pub async fn run<T>(
        &self,
        line: impl Into<String>,
        each: impl Fn(&[T], u32) -> Option<T>,
    ) -> anyhow::Result<Vec<Command<'_>>>
    where
        T: Clone,
    {
        Ok(vec![])
    }

    /// Not seen.
    #[doc(hidden)]
    pub fn hidden(&self) {}

    /// Not seen.
    pub(crate) fn inner(&self) {}

    /// The same, waited for.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self
    }

    /// Whether it holds.
    pub fn check(self) -> Result<(), Failure> {
        Ok(())
    }
}
";

    fn shown(items: &[Item]) -> Vec<String> {
        let items = items.iter();
        items
            .map(|it| format!("{} | {}", it.code, it.about))
            .collect()
    }

    #[test]
    fn functions_are_told_as_their_caller_writes_them() {
        assert_eq!(
            shown(&functions(SOURCE)),
            [
                "secs(seconds: u64) -> Duration | So many seconds.",
                "Declared::new(name: &str) -> Declared | One.",
                "listed_node.run(line: &str, each: impl Fn(&[T], u32) -> Option<T>).await? -> \
                 Vec<Command> | Runs `a. b` on it, see `Command`.",
                "listed_node.within(limit: Duration) -> ListedNode | The same, waited for.",
                "listed_node.check()? | Whether it holds.",
            ]
        );
        assert_eq!(
            shown(&functions_of(SOURCE, "Declared", "Wish")),
            ["Wish::new(name: &str) -> Wish | One."]
        );
    }

    #[test]
    fn fields_and_variants_have_the_sentence_before_them() {
        assert_eq!(
            shown(&fields(SOURCE, "Declared")),
            ["name: &str | Its name.", "limit: Duration | How long."]
        );
        assert_eq!(
            shown(&variants(SOURCE, "Fault")),
            [
                "None | Nothing.",
                "OfNode(&str) | A node, `Node`.",
                "Way { from, to } | A way."
            ]
        );
        assert_eq!(variants(SOURCE, "Faul"), []);
        assert_eq!(defaults(SOURCE), [("limit", "secs(3)")]);
        assert_eq!(module(SOURCE), "Machines and their names.");
    }

    #[test]
    fn a_text_constant_is_its_lines() {
        let source = "const USAGE: &str = \"\\\nusage: a\n       b\";\nconst B: u32 = 1;";
        assert_eq!(text(source, "USAGE").as_deref(), Some("usage: a\n       b"));
        assert_eq!(text(source, "B"), None);
    }

    #[test]
    fn a_source_is_its_items_and_nothing_is_lost() {
        let source = "\
//! Head.

use a::b;

/// A.
const A: &[u32] = &[

    1,
];

async fn b() {
    c();

    d();
}
";
        let items = items(source);
        let names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["head", "A", "b"]);
        let texts: Vec<&str> = items.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts.join("\n\n") + "\n", source);
    }
}
