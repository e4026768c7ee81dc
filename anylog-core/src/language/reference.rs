//! The command reference, derived from the declarations: for a terminal, and as a document.

use std::fmt::Write;

use crate::Access;
use crate::command::{Declaration, Method, OptionSpec, Positional, PositionalKind, Registry};

/// What a declaration says of rights.
fn access(declaration: &Declaration) -> &'static str {
    match (declaration.access_for, declaration.access) {
        (Some(_), _) => "depends on the call",
        (None, Access::Read) => "read",
        (None, Access::Data) => "data",
        (None, Access::Admin) => "admin",
    }
}

fn method(declaration: &Declaration) -> &'static str {
    match declaration.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Any => "GET or POST",
    }
}

/// What is said of an option beside its help.
fn traits(option: &OptionSpec) -> String {
    let mut traits = Vec::new();
    if option.required {
        traits.push("required".to_owned());
    }
    if option.repeated {
        traits.push("may be repeated".to_owned());
    }
    if let Some(default) = option.default {
        traits.push(format!("default {default}"));
    }
    if !option.aliases.is_empty() {
        traits.push(format!("also {}", option.aliases.join(", ")));
    }
    traits.join(", ")
}

/// The words that a reader has to choose: not those that are written as they are.
fn chosen(declaration: &Declaration) -> impl Iterator<Item = &Positional> {
    declaration.positionals.iter().filter(|word| !matches!(word.kind, PositionalKind::Keyword(_)))
}

/// All about one command, for a terminal.
#[must_use]
pub fn text(declaration: &Declaration) -> String {
    let mut out =
        format!("Usage:\r\n        {}\r\n\r\nExplanation:\r\n        {}\r\n", declaration.usage(), declaration.summary);
    let words: Vec<(String, String)> = chosen(declaration)
        .map(|word| (format!("<{}>", word.name), word.help.to_owned()))
        .chain(declaration.options.iter().map(|option| {
            let traits = traits(option);
            let traits = if traits.is_empty() { traits } else { format!(" ({traits})") };
            (format!("{} = <{}>", option.name, option.kind.describe()), format!("{}{traits}", option.help))
        }))
        .collect();
    if !words.is_empty() {
        out.push_str("\r\nOptions:\r\n");
        let width = words.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, help) in &words {
            line(&mut out, format_args!("        {name:<width$}  {help}"));
        }
    }
    if !declaration.returns.is_empty() {
        line(&mut out, format_args!("\r\nReturns:\r\n        {}", declaration.returns));
    }
    line(&mut out, format_args!("\r\nAccess: {}, HTTP: {}", access(declaration), method(declaration)));
    if !declaration.aliases.is_empty() {
        line(&mut out, format_args!("\r\nAlso written:\r\n        {}", declaration.aliases.join("\r\n        ")));
    }
    if !declaration.examples.is_empty() {
        line(&mut out, format_args!("\r\nExamples:\r\n        {}", declaration.examples.join("\r\n        ")));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    write!(out, "{text}\r\n").expect("invariant: writing into a String does not fail");
}

/// The reference of all commands as a Markdown document, grouped by their first words.
#[must_use]
pub fn markdown(registry: &Registry) -> String {
    let commands = registry.commands();
    let mut declarations: Vec<&Declaration> = commands.iter().map(|command| command.declaration()).collect();
    declarations.sort_by_key(|declaration| (first_word(declaration), declaration.words));
    let mut out = String::from(
        "# Commands\n\n\
         Made from the declarations of the commands; do not edit. `help <words>` shows the same at a terminal.\n\n\
         *Access* is the right that a caller needs: `read`, `data` or `admin`. *HTTP* is the method by which REST clients call.\n",
    );
    contents(&mut out, &declarations);
    let mut group = "";
    for declaration in declarations {
        if first_word(declaration) != group {
            group = first_word(declaration);
            push(&mut out, format_args!("\n## {group}\n"));
        }
        entry(&mut out, declaration);
    }
    out
}

fn first_word(declaration: &Declaration) -> &'static str {
    declaration.words.split(' ').next().unwrap_or_default()
}

fn contents(out: &mut String, declarations: &[&Declaration]) {
    out.push('\n');
    let mut links: Vec<String> = Vec::new();
    for declaration in declarations {
        let word = first_word(declaration);
        let link = format!("[{word}](#{})", word.to_lowercase());
        if links.last() != Some(&link) {
            links.push(link);
        }
    }
    push(out, format_args!("{}\n", links.join(" · ")));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("invariant: writing into a String does not fail");
}

fn entry(out: &mut String, declaration: &Declaration) {
    push(out, format_args!("\n### {}\n\n{}\n\n", declaration.words, declaration.summary));
    push(out, format_args!("```text\n{}\n```\n\n", declaration.usage()));
    push(out, format_args!("Access: {}. HTTP: {}.\n", access(declaration), method(declaration)));
    let words: Vec<&Positional> = chosen(declaration).collect();
    if !words.is_empty() {
        out.push_str("\n| word | meaning |\n|---|---|\n");
        for word in words {
            let optional = if word.required { "" } else { " (optional)" };
            push(out, format_args!("| `<{}>` | {}{optional} |\n", word.name.replace('_', " "), cell(word.help)));
        }
    }
    if !declaration.options.is_empty() {
        out.push_str("\n| option | value | meaning | |\n|---|---|---|---|\n");
        for option in &declaration.options {
            let (name, kind) = (option.name, cell(&option.kind.describe()));
            push(out, format_args!("| `{name}` | {kind} | {} | {} |\n", cell(option.help), cell(&traits(option))));
        }
    }
    if !declaration.returns.is_empty() {
        push(out, format_args!("\nReturns {}.\n", declaration.returns.trim_end_matches('.')));
    }
    if !declaration.aliases.is_empty() {
        let aliases: Vec<String> = declaration.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        push(out, format_args!("\nAlso written {}.\n", aliases.join(", ")));
    }
    if !declaration.examples.is_empty() {
        push(out, format_args!("\n```text\n{}\n```\n", declaration.examples.join("\n")));
    }
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
