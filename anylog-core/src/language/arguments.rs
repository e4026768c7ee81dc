//! The words of a call, checked against the declaration of its command.

use super::expand::is_reference;
use super::lexer::join;
use super::where_list::{self, positional_fits, strict};
use crate::command::{Declaration, OptionKind, Options, Positional, PositionalKind, Value, Word};
use crate::error::nearest;
use crate::{CommandError, Node};

/// What a declared command is called with.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positionals: Vec<(&'static str, Value)>,
    pub(super) options: Options,
}

/// Parses the words after the command's own name. A command with its own grammar gets nothing here.
pub(super) fn parse(node: &Node, declaration: &Declaration, words: &[Word]) -> Result<Arguments, CommandError> {
    if declaration.grammar.is_some() {
        return Ok(Arguments::default());
    }
    let takes_options = !declaration.options.is_empty() || declaration.any_option;
    let introducer = words.iter().position(|word| takes_options && is(word, declaration.introducer));
    let (before, listed) = match introducer {
        Some(at) => (&words[..at], Some(&words[at + 1..])),
        None => (words, None),
    };
    let positionals = positionals(node, declaration, before)?;
    let options = match listed {
        Some(words) => where_list::parse(node, declaration, words)?,
        None => without_list(declaration)?,
    };
    Ok(Arguments { positionals, options })
}

fn is(word: &Word, text: &str) -> bool {
    !word.quoted && word.text == text
}

fn without_list(declaration: &Declaration) -> Result<Options, CommandError> {
    match declaration.options.iter().find(|spec| spec.required) {
        Some(spec) => Err(CommandError::structure(format!(
            "Missing '{}' in command variables of '{}'",
            spec.name, declaration.words
        ))
        .hint(format!("usage: {}", declaration.usage()))),
        None => Ok(Options::default()),
    }
}

fn positionals(
    node: &Node,
    declaration: &Declaration,
    mut words: &[Word],
) -> Result<Vec<(&'static str, Value)>, CommandError> {
    let mut found = Vec::new();
    for (index, positional) in declaration.positionals.iter().enumerate() {
        let next = declaration.positionals.get(index + 1);
        let used = match &positional.kind {
            PositionalKind::Keyword(keyword) => {
                if words.first().is_some_and(|word| is(word, keyword)) {
                    found.push((positional.name, Value::Text((*keyword).to_owned())));
                    1
                } else {
                    0
                }
            }
            PositionalKind::Rest if words.is_empty() => 0,
            PositionalKind::Rest => {
                found.push((positional.name, rest(node, words)?));
                words.len()
            }
            PositionalKind::Word(kind) => match word(node, positional, *kind, words, next)? {
                Some((value, used)) => {
                    found.push((positional.name, value));
                    used
                }
                None => 0,
            },
        };
        if used == 0 && positional.required {
            return Err(missing(declaration, positional, words));
        }
        words = &words[used..];
    }
    match words.first() {
        Some(word) => Err(unexpected(declaration, word)),
        None => Ok(found),
    }
}

/// The words of a `Rest`, each expanded; an unset reference is an error.
fn rest(node: &Node, words: &[Word]) -> Result<Value, CommandError> {
    if let [word] = words {
        return strict(node, word).map(|value| Value::Text(value.to_string()));
    }
    let expanded: Result<Vec<Word>, CommandError> = words
        .iter()
        .map(|word| Ok(Word { text: strict(node, word)?.to_string(), quoted: word.quoted, span: word.span.clone() }))
        .collect();
    Ok(Value::Text(join(&expanded?)))
}

/// The value of one positional and how many words it took: two for values such as `1 day`.
fn word(
    node: &Node,
    positional: &Positional,
    kind: OptionKind,
    words: &[Word],
    next: Option<&Positional>,
) -> Result<Option<(Value, usize)>, CommandError> {
    let Some(first) = words.first() else { return Ok(None) };
    let is_next = match next.map(|next| &next.kind) {
        Some(PositionalKind::Keyword(keyword)) => is(first, keyword),
        _ => false,
    };
    if is_next && !positional.required {
        return Ok(None);
    }
    let value = strict(node, first)?;
    if kind == OptionKind::Text {
        return Ok(Some((Value::Text(value.to_string()), 1)));
    }
    let two_words = matches!(kind, OptionKind::Duration | OptionKind::Bytes | OptionKind::Frequency | OptionKind::Date);
    if let Some(second) = words.get(1).filter(|second| two_words && !second.quoted && !is_reference(&second.text)) {
        let both = format!("{value} {}", second.text);
        if let Ok(value) = positional_fits(node, kind, &both) {
            return Ok(Some((value, 2)));
        }
    }
    let named = |error: CommandError| {
        let message = error.message.replacen("'value'", &format!("<{}>", positional.name.replace('_', " ")), 1);
        CommandError { message, ..error }
    };
    positional_fits(node, kind, &value.to_string()).map(|value| Some((value, 1))).map_err(named)
}

fn missing(declaration: &Declaration, positional: &Positional, words: &[Word]) -> CommandError {
    let wanted = match positional.kind {
        PositionalKind::Keyword(keyword) => format!("'{keyword}'"),
        _ => format!("<{}>", positional.name.replace('_', " ")),
    };
    let place = words.first().map_or_else(|| "at the end".to_owned(), |word| format!("before '{}'", word.text));
    CommandError::structure(format!("Missing {wanted} {place} of '{}'", declaration.words))
        .hint(format!("usage: {}", declaration.usage()))
}

fn unexpected(declaration: &Declaration, word: &Word) -> CommandError {
    let error = CommandError::structure(format!("Unexpected word '{}' in '{}'", word.text, declaration.words));
    let takes_options = !declaration.options.is_empty() || declaration.any_option;
    if takes_options && nearest(&word.text, [declaration.introducer]).is_some() {
        return error.hint(format!("did you mean '{}'?", declaration.introducer));
    }
    error.hint(format!("usage: {}", declaration.usage()))
}
