//! Changes of `config/psn.toml` that leave every other line as it was: comments, blanks and order are a person's.
use toml_edit::{Document, DocumentMut, Item, Table, TableLike, Value};

/// The text with this value; `None` where it has no place, as inside of what is no table.
pub(super) fn set(text: &str, path: &[&str], value: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let (key, tables) = path.split_last()?;
    if let Some(item) = find(document.as_table(), path) {
        let span = item.as_value()?.span()?;
        return Some([&text[..span.start], &literal(value).to_string(), &text[span.end..]].concat());
    }
    let line = format!("{key} = {}{}", literal(value), newline(text));
    match find(document.as_table(), tables) {
        Some(Item::Table(table)) if table.is_dotted() => by_document(text, path, Some(value)),
        Some(Item::Table(table)) if !table.is_implicit() => {
            let at = place(text, document.as_table(), table, key)?;
            let gap = if text[..at].ends_with('\n') { "" } else { newline(text) };
            Some([&text[..at], gap, &line, &text[at..]].concat())
        }
        Some(Item::Value(_)) => by_document(text, path, Some(value)),
        _ => {
            let gap = match text {
                "" => String::new(),
                _ if text.ends_with('\n') => newline(text).to_owned(),
                _ => newline(text).repeat(2),
            };
            Some(format!("{text}{gap}[{}]{}{line}", tables.join("."), newline(text)))
        }
    }
}

/// The text without this value, and without its table where that held nothing else; as it is where there is none.
pub(super) fn unset(text: &str, path: &[&str]) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let (key, tables) = path.split_last()?;
    let Some(span) = find(document.as_table(), path).and_then(|item| item.as_value()?.span()) else {
        return Some(text.to_owned());
    };
    let table = match find(document.as_table(), tables)? {
        Item::Table(table) => table,
        _ => return by_document(text, path, None),
    };
    let (from, to) = (line_start(text, table.key(key)?.span()?.start), line_end(text, span.end));
    let mut text = [&text[..from], &text[to..]].concat();
    for depth in (1..=tables.len()).rev() {
        match without_empty(&text, &tables[..depth])? {
            Some(pruned) => text = pruned,
            None => break,
        }
    }
    Some(text)
}

/// Without the header of a table that has nothing under it, not even a comment, and the blank line above; `None` where it has.
fn without_empty(text: &str, path: &[&str]) -> Option<Option<String>> {
    let document = Document::parse(text).ok()?;
    let table = match find(document.as_table(), path) {
        Some(Item::Table(table)) if table.is_dotted() => return Some(None),
        Some(Item::Table(table)) if !table.is_implicit() => table,
        _ => return Some(Some(text.to_owned())),
    };
    let start = table.span()?.start;
    let (header, body, end) =
        (line_start(text, start), line_end(text, start), section_end(text, document.as_table(), start));
    if !table.is_empty() || !text[body..end].trim().is_empty() {
        return Some(None);
    }
    let above = text[..header].strip_suffix(newline(text)).filter(|a| a.is_empty() || a.ends_with('\n'));
    Some(Some([above.unwrap_or(&text[..header]), &text[body..]].concat()))
}

/// Where the text has no line of its own for the value: `neon = { region = "…" }`, `neon.region = "…"`.
fn by_document(text: &str, path: &[&str], change: Option<&str>) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let (key, tables) = path.split_last()?;
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for word in tables {
        table = table.get_mut(word)?.as_table_like_mut()?;
    }
    match change {
        Some(text) => table.insert(key, Item::Value(literal(text))),
        None => table.remove(key),
    };
    Some(document.to_string())
}

fn find<'a>(root: &'a Table, path: &[&str]) -> Option<&'a Item> {
    let (last, tables) = path.split_last()?;
    let mut table: &dyn TableLike = root;
    for word in tables {
        table = table.get(word)?.as_table_like()?;
    }
    table.get(last)
}

/// Behind the commented-out line of the same name, if the table has one; else behind its last value and the comments that follow it.
fn place(text: &str, root: &Table, table: &Table, key: &str) -> Option<usize> {
    let header = table.span()?.start;
    let end = section_end(text, root, header);
    let first = line_end(text, header);
    let example = lines(text, first, end).find(|(line, _)| {
        let commented = line.trim_start().strip_prefix('#').and_then(|l| l.trim_start().strip_prefix(key));
        commented.is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    if let Some((_, end_of_line)) = example {
        return Some(end_of_line);
    }
    let last = last_value(table).map_or(first, |end| line_end(text, end));
    let comments = lines(text, last, end).take_while(|(line, _)| is_comment(line));
    Some(comments.last().map_or(last, |(_, end_of_line)| end_of_line))
}

/// Where the next table's header begins.
fn section_end(text: &str, root: &Table, header: usize) -> usize {
    let mut headers = Vec::new();
    collect_headers(root, &mut headers);
    headers.into_iter().filter(|h| *h > header).min().map_or(text.len(), |next| line_start(text, next))
}

fn collect_headers(table: &Table, into: &mut Vec<usize>) {
    for (_, item) in table {
        if let Item::Table(table) = item {
            if !table.is_dotted() && !table.is_implicit() {
                into.extend(table.span().map(|span| span.start));
            }
            collect_headers(table, into);
        }
    }
}

/// The end of the last value that stands under the table's header.
fn last_value(table: &Table) -> Option<usize> {
    let ends = table.iter().filter_map(|(_, item)| match item {
        Item::Value(value) => value.span().map(|span| span.end),
        Item::Table(dotted) if dotted.is_dotted() => last_value(dotted),
        _ => None,
    });
    ends.max()
}

/// Each line of a part of the text, and where it ends.
fn lines(text: &str, from: usize, to: usize) -> impl Iterator<Item = (&str, usize)> {
    text[from..to].split_inclusive('\n').scan(from, |at, line| {
        *at += line.len();
        Some((line, *at))
    })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |n| n + 1)
}

/// Behind the line break.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |n| at + n + 1)
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// A number or a truth value as itself, everything else as text.
fn literal(value: &str) -> Value {
    match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(n), _) if n.to_string() == value => n.into(),
        (_, Ok(b)) => b.into(),
        _ => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTER: &str = include_str!("../../../config/psn.toml");

    fn put(text: &str, name: &str, value: &str) -> String {
        set(text, &name.split('.').collect::<Vec<_>>(), value).unwrap()
    }

    fn take(text: &str, name: &str) -> String {
        unset(text, &name.split('.').collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_value_goes_behind_its_example_and_leaves_no_trace_when_it_goes() {
        let set = put(STARTER, "hub.kind", "cloud");
        assert!(set.contains("wins over this.\n# kind = \"local\"\nkind = \"cloud\"\n\n[neon]\n"), "{set}");
        let mut all = STARTER.to_owned();
        let names =
            ["hub.kind", "neon.region", "neon.org_id", "watchdog.task", "http.timeout", "neon.other", "a.b.c.d"];
        for name in names {
            all = put(&all, name, "x");
            let comments =
                |text: &str| text.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(comments(&all), comments(STARTER), "{name}");
            assert_eq!(take(&put(STARTER, name, "5"), name), STARTER, "{name}");
        }
        assert!(all.contains("# role = \"hub_owner\"\nother = \"x\"\n"), "{all}");
        assert!(all.ends_with("# task = \"publish-post\"\ntask = \"x\"\n\n[a.b.c]\nd = \"x\"\n"), "{all}");
        for name in names.iter().rev() {
            all = take(&all, name);
        }
        assert_eq!(all, STARTER);
    }

    #[test]
    fn what_a_person_wrote_stays_in_every_form() {
        let mine = "# top\n[a] # mine\nx = 1 # one\n# after\n\n# of b\n[b]\n  y = '''two\n[c]\n'''\n# last";
        assert_eq!(put(mine, "a.x", "7"), mine.replace("x = 1 #", "x = 7 #"));
        assert_eq!(put(mine, "a.z", "2"), mine.replace("# after\n", "# after\nz = 2\n"));
        assert_eq!(put(mine, "b.z", "2"), format!("{mine}\nz = 2\n"));
        assert_eq!(put(mine, "d.z", "w"), format!("{mine}\n\n[d]\nz = \"w\"\n"));
        assert_eq!(take(mine, "a.x"), mine.replace("x = 1 # one\n", ""));
        assert_eq!(take(mine, "b.y"), "# top\n[a] # mine\nx = 1 # one\n# after\n\n# of b\n[b]\n# last");
        assert_eq!(take(mine, "no.such"), mine);
        assert_eq!(take("[z]\nx = 1\n\n[a]\n\n[a.b]\n\n[a.b.c]\nd = 5\n", "a.b.c.d"), "[z]\nx = 1\n");
        assert_eq!(take("[a]\nx = 1\n\n[a.b]\ny = 1\n\n[c]\nz = 1\n", "a.b.y"), "[a]\nx = 1\n\n[c]\nz = 1\n");
        // Forms without lines.
        let same = |text: String, other: &str| assert_eq!(text.replace(' ', ""), other.replace(' ', ""));
        same(put("n = { r = \"a\" }\n", "n.o", "b"), "n = { r = \"a\", o = \"b\" }\n");
        same(take("n = { r = \"a\", o = 1 }\n", "n.o"), "n = { r = \"a\" }\n");
        assert_eq!(put("n.r = \"a\" # c\n", "n.r", "b"), "n.r = \"b\" # c\n");
        assert_eq!(take("# c\nn.r = \"a\"\nm.s = 1\n", "n.r"), "# c\nm.s = 1\n");
        assert!(put("n.r = \"a\"\n", "n.o", "b").contains("n.o = \"b\""));
        assert_eq!(put("[a.b]\r\nc = 1\r\n", "a.d", "true"), "[a.b]\r\nc = 1\r\n\r\n[a]\r\nd = true\r\n");
        assert_eq!(set("a = 1\n", &["a", "b"], "2"), None, "what stands there is no table");
        assert_eq!(put("", "a.b", "c"), "[a]\nb = \"c\"\n");
    }
}
