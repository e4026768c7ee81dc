//! The one declaration of a command.

use crate::Access;

/// The HTTP methods under which a command may be called over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Information: `GET`, and the JSON-body form of `POST`.
    Get,
    /// Everything that changes something: `POST`.
    Post,
    /// Both.
    Any,
}

/// The type of an option's value or of a positional word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// An integer.
    Int,
    /// A decimal number.
    Float,
    /// `true` or `false`, in any case.
    Bool,
    /// `N unit`: second(s), minute(s), hour(s), day(s), week(s).
    Duration,
    /// Bytes, or a number with KB, MB, GB or TB (binary multiples).
    Bytes,
    /// Seconds between repetitions: `5`, or `5 hz` for a fifth of a second.
    Frequency,
    /// `host:port`.
    Address,
    /// A directory.
    Directory,
    /// A timestamp, or one relative to now such as `-3d`.
    Date,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Column numbers in parentheses: `(2,3)`.
    Columns,
    /// A list in parentheses with options of its own: `(name = a and dbms = b)`.
    Nested,
    /// A JSON text, or a reference to one; references inside it are expanded.
    Json,
}

impl OptionKind {
    /// How the type is named in help and errors.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            OptionKind::Text => "text".into(),
            OptionKind::Int => "integer".into(),
            OptionKind::Float => "number".into(),
            OptionKind::Bool => "true|false".into(),
            OptionKind::Duration => "N seconds|minutes|hours|days|weeks".into(),
            OptionKind::Bytes => "N[KB|MB|GB|TB]".into(),
            OptionKind::Frequency => "seconds | N hz".into(),
            OptionKind::Address => "host:port".into(),
            OptionKind::Directory => "directory".into(),
            OptionKind::Date => "timestamp | -3d".into(),
            OptionKind::Choice(words) => words.join("|"),
            OptionKind::Columns => "(column,column)".into(),
            OptionKind::Nested => "( ... )".into(),
            OptionKind::Json => "JSON".into(),
        }
    }
}

/// One option of a where-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key.
    pub name: &'static str,
    /// Older spellings of the key.
    pub aliases: &'static [&'static str],
    /// The type of its value.
    pub kind: OptionKind,
    /// Whether the command fails without it.
    pub required: bool,
    /// Whether it may be given more than once.
    pub repeated: bool,
    /// What holds when it is absent, as shown in help; the command itself applies it.
    pub default: Option<&'static str>,
    /// One sentence.
    pub help: &'static str,
}

/// One word that is not a `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positional {
    /// The name under which the command asks for it.
    pub name: &'static str,
    /// What is expected there.
    pub kind: PositionalKind,
    /// Whether the command fails without it.
    pub required: bool,
    /// One sentence.
    pub help: &'static str,
}

/// What a positional word may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PositionalKind {
    /// One word, expanded, of this type.
    Word(OptionKind),
    /// This word itself.
    Keyword(&'static str),
    /// All words that are left, each expanded, as one text: one blank where blanks stood between them, nothing where none stood.
    Rest,
}

/// What a command is called, what it takes and returns, who may call it and how.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The words that begin the command: `run tcp server`.
    pub words: &'static str,
    /// Other words that begin it: older spellings.
    pub aliases: Vec<&'static str>,
    /// One sentence.
    pub summary: &'static str,
    /// What it answers.
    pub returns: &'static str,
    /// Complete calls to copy.
    pub examples: Vec<&'static str>,
    /// Words before the where-list.
    pub positionals: Vec<Positional>,
    /// The keys of the where-list.
    pub options: Vec<OptionSpec>,
    /// The word before the options; `where` for nearly all.
    pub introducer: &'static str,
    /// True when the where-list takes any key.
    pub any_option: bool,
    /// Set when the command reads its own words; shown in help as its form.
    pub grammar: Option<&'static str>,
    /// What it does to the node. A command whose answer depends on its words overrides it with [`Self::access_by`].
    pub access: Access,
    /// Decides the access from the words of the call, when it depends on them.
    pub access_for: Option<fn(&[&str]) -> Access>,
    /// The HTTP methods it may be called by.
    pub method: Method,
}

impl Declaration {
    /// A command without words or options, for administrators, by `POST`.
    #[must_use]
    pub fn new(words: &'static str, summary: &'static str) -> Self {
        Self {
            words,
            aliases: Vec::new(),
            summary,
            returns: "",
            examples: Vec::new(),
            positionals: Vec::new(),
            options: Vec::new(),
            introducer: "where",
            any_option: false,
            grammar: None,
            access: Access::Admin,
            access_for: None,
            method: Method::Post,
        }
    }

    /// Marks a command that only looks: access [`Access::Read`], method [`Method::Get`].
    #[must_use]
    pub fn reads(mut self) -> Self {
        self.access = Access::Read;
        self.method = Method::Get;
        self
    }

    /// Marks a command that adds data or validated policies.
    #[must_use]
    pub fn adds_data(mut self) -> Self {
        self.access = Access::Data;
        self
    }

    /// Lets the access depend on the words of the call.
    #[must_use]
    pub fn access_by(mut self, access_for: fn(&[&str]) -> Access) -> Self {
        self.access_for = Some(access_for);
        self
    }

    /// Sets the HTTP method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Adds another spelling.
    #[must_use]
    pub fn alias(mut self, words: &'static str) -> Self {
        self.aliases.push(words);
        self
    }

    /// Says what the command answers.
    #[must_use]
    pub fn returns(mut self, returns: &'static str) -> Self {
        self.returns = returns;
        self
    }

    /// Adds a complete call to copy.
    #[must_use]
    pub fn example(mut self, example: &'static str) -> Self {
        self.examples.push(example);
        self
    }

    /// Adds a required word.
    #[must_use]
    pub fn word(mut self, name: &'static str, help: &'static str) -> Self {
        self.positionals.push(Positional { name, kind: PositionalKind::Word(OptionKind::Text), required: true, help });
        self
    }

    /// Adds an optional word.
    #[must_use]
    pub fn optional_word(mut self, name: &'static str, help: &'static str) -> Self {
        self.positionals.push(Positional { name, kind: PositionalKind::Word(OptionKind::Text), required: false, help });
        self
    }

    /// Adds a positional word of any kind.
    #[must_use]
    pub fn positional(mut self, positional: Positional) -> Self {
        self.positionals.push(positional);
        self
    }

    /// Adds a fixed word between positional ones, such as `using` and `by`.
    #[must_use]
    pub fn keyword(mut self, keyword: &'static str) -> Self {
        self.positionals.push(Positional {
            name: keyword,
            kind: PositionalKind::Keyword(keyword),
            required: true,
            help: "",
        });
        self
    }

    /// Takes all words that are left as one text.
    #[must_use]
    pub fn rest(mut self, name: &'static str, required: bool, help: &'static str) -> Self {
        self.positionals.push(Positional { name, kind: PositionalKind::Rest, required, help });
        self
    }

    /// Adds an optional option.
    #[must_use]
    pub fn option(mut self, name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        self.options.push(OptionSpec {
            name,
            aliases: &[],
            kind,
            required: false,
            repeated: false,
            default: None,
            help,
        });
        self
    }

    /// Adds an option that must be given.
    #[must_use]
    pub fn required(mut self, name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        self.options.push(OptionSpec {
            name,
            aliases: &[],
            kind,
            required: true,
            repeated: false,
            default: None,
            help,
        });
        self
    }

    /// Adds an option that may be given several times.
    #[must_use]
    pub fn repeated(mut self, name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        self.options.push(OptionSpec {
            name,
            aliases: &[],
            kind,
            required: false,
            repeated: true,
            default: None,
            help,
        });
        self
    }

    /// Adds `format = table|json`.
    #[must_use]
    pub fn format_option(self) -> Self {
        self.option("format", OptionKind::Choice(&["table", "json"]), "layout of the answer").default_is("table")
    }

    /// Changes the option added last: what holds when it is absent.
    ///
    /// # Panics
    /// When no option was added before: a mistake in the declaration itself.
    #[must_use]
    pub fn default_is(mut self, default: &'static str) -> Self {
        self.options.last_mut().expect("invariant: default_is follows an option").default = Some(default);
        self
    }

    /// Changes the option added last: older spellings of its key.
    ///
    /// # Panics
    /// When no option was added before: a mistake in the declaration itself.
    #[must_use]
    pub fn key_alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.options.last_mut().expect("invariant: key_alias follows an option").aliases = aliases;
        self
    }

    /// Changes the option added last: it must be given.
    ///
    /// # Panics
    /// When no option was added before: a mistake in the declaration itself.
    #[must_use]
    pub fn is_required(mut self) -> Self {
        self.options.last_mut().expect("invariant: is_required follows an option").required = true;
        self
    }

    /// Uses another word than `where` before the options.
    #[must_use]
    pub fn introduced_by(mut self, word: &'static str) -> Self {
        self.introducer = word;
        self
    }

    /// Takes any key in the where-list.
    #[must_use]
    pub fn any_option(mut self) -> Self {
        self.any_option = true;
        self
    }

    /// Lets the command read its own words; `grammar` is shown in help.
    #[must_use]
    pub fn grammar(mut self, grammar: &'static str) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// What this call does to the node.
    #[must_use]
    pub fn access_of(&self, words: &[&str]) -> Access {
        self.access_for.map_or(self.access, |access_for| access_for(words))
    }

    /// All word sequences that begin the command.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.words).chain(self.aliases.iter().copied())
    }

    /// The form of a call, derived from the declaration: `drop dbms [name] where type = ...`.
    #[must_use]
    pub fn usage(&self) -> String {
        if let Some(grammar) = self.grammar {
            return format!("{} {grammar}", self.words).trim_end().to_owned();
        }
        let mut usage = self.words.to_owned();
        for positional in &self.positionals {
            let shown = match positional.kind {
                PositionalKind::Keyword(word) => word.to_owned(),
                _ => format!("<{}>", positional.name.replace('_', " ")),
            };
            usage.push(' ');
            usage.push_str(&if positional.required { shown } else { format!("[{shown}]") });
        }
        if !self.options.is_empty() || self.any_option {
            let mut terms: Vec<String> = self
                .options
                .iter()
                .map(|option| {
                    let term = format!("{} = <{}>", option.name, option.kind.describe());
                    if option.required { term } else { format!("[{term}]") }
                })
                .collect();
            if self.any_option {
                terms.push("<key> = <value> ...".into());
            }
            let list = format!("{} {}", self.introducer, terms.join(" and "));
            usage.push(' ');
            usage.push_str(&if self.options.iter().any(|option| option.required) { list } else { format!("[{list}]") });
        }
        usage
    }
}
