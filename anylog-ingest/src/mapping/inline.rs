//! Mapping by the columns named in a topic.

use anylog_core::names::normalize;
use anylog_core::{CommandError, Status};
use jiff::tz::TimeZone;

use super::source::{Cell, Document, Found, Source};
use super::types::{self, DeclaredType, Form};
use super::zone;
use super::{MappingError, Parts};
use crate::json::{self, Node};

/// Where the name of a database or table comes from.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// Written in the mapping; normalised.
    Fixed(String),
    /// In the message.
    Bring(Source),
}

impl Name {
    /// Reads a literal or a `bring`.
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        match Source::of_bring(text) {
            Some(source) => Ok(Name::Bring(source?)),
            None => Ok(Name::Fixed(normalize(text))),
        }
    }

    /// The text under which it is shown.
    pub(super) fn text(&self) -> String {
        match self {
            Name::Fixed(name) => name.clone(),
            Name::Bring(source) => format!("bring {}", source.text()),
        }
    }

    pub(super) fn resolve<'n>(&'n self, document: &Document<'_>) -> Names<'n> {
        match self {
            Name::Fixed(name) => Names::One(std::borrow::Cow::Borrowed(name)),
            Name::Bring(source) => match source.find(document) {
                Cell::One(found) => Names::One(normal(found.as_ref()).into()),
                Cell::Many(found) => Names::Many(found.iter().map(|found| normal(found.as_ref())).collect()),
            },
        }
    }
}

fn normal(found: Option<&Found<'_>>) -> String {
    found.filter(|found| !found.is_null()).map(|found| normalize(&found.plain())).unwrap_or_default()
}

/// Names found in one message.
pub(super) enum Names<'n> {
    One(std::borrow::Cow<'n, str>),
    Many(Vec<String>),
}

impl Names<'_> {
    /// The name for a row; `None` when the message gives none.
    pub(super) fn of(&self, row: usize) -> Option<&str> {
        let name = match self {
            Names::One(name) => name.as_ref(),
            Names::Many(names) => names.get(row)?.as_str(),
        };
        (!name.is_empty()).then_some(name)
    }

    /// How many rows it makes, when it walks through a list.
    fn rows(&self) -> usize {
        match self {
            Names::One(_) => 0,
            Names::Many(names) => names.len(),
        }
    }
}

/// Where the value of a column comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ValueSource {
    /// The time at which the message came.
    Now,
    /// The same text in every row.
    Constant(String),
    /// A `bring`, as written.
    Bring(String),
}

#[derive(Debug, Clone)]
enum Value {
    Now,
    Constant(String),
    Bring(Source),
}

#[derive(Debug, Clone)]
enum Type {
    Fixed(DeclaredType),
    Bring(Source),
}

/// A column of an inline mapping.
#[derive(Debug, Clone)]
pub struct Column {
    name: String,
    // The name as it begins an attribute of a row: `"value":`.
    key: String,
    kind: Type,
    value: Value,
    optional: bool,
    /// In which zone times without an offset are meant.
    zone: Option<TimeZone>,
}

impl Column {
    /// A column `name` of type `kind` (a type name, or a `bring` of type names parallel to the values) with the value `value`
    /// (`now`, a `bring`, or a constant).
    ///
    /// # Errors
    /// [`Status::MESSAGE_DECLARATION`] for a name without characters or an unknown type; the errors of a malformed `bring`.
    pub fn new(name: &str, kind: &str, value: &str, optional: bool) -> Result<Self, CommandError> {
        let name = normalize(name);
        if name.is_empty() {
            return Err(CommandError::new(Status::MESSAGE_DECLARATION, "A column without a name"));
        }
        let kind = match Source::of_bring(kind) {
            Some(source) => Type::Bring(source?),
            None => Type::Fixed(DeclaredType::parse(kind).ok_or_else(|| {
                CommandError::new(Status::MESSAGE_DECLARATION, format!("Column '{name}': '{kind}' is not a type"))
                    .hint("types are str, int, float, timestamp, bool, varchar, bigint, char(n), date, time, uuid")
            })?),
        };
        let value = match Source::of_bring(value) {
            _ if value.trim() == "now" || value.trim() == "now()" => Value::Now,
            Some(source) => Value::Bring(source?),
            None => Value::Constant(value.to_owned()),
        };
        let mut key = String::new();
        json::push_quoted(&mut key, &name);
        key.push(':');
        Ok(Self { name, key, kind, value, optional, zone: None })
    }

    /// The same with times without an offset meant in this zone: `Europe/Berlin`, `UTC`, `+02:00`.
    ///
    /// # Errors
    /// [`Status::MESSAGE_DECLARATION`] for a name that is no zone, and for a column that is no `timestamp`.
    pub fn in_zone(mut self, name: &str) -> Result<Self, CommandError> {
        let zone = zone::declared(name)?;
        if !self.is_timestamp() {
            let wrong = format!("Column '{}' is of type {}: a time zone is for timestamps", self.name, self.kind());
            return Err(CommandError::new(Status::MESSAGE_DECLARATION, wrong));
        }
        self.zone = Some(zone);
        Ok(self)
    }

    /// Whether it holds times, and may have a zone.
    #[must_use]
    pub fn is_timestamp(&self) -> bool {
        matches!(&self.kind, Type::Fixed(kind) if kind.name == "timestamp")
    }

    /// The zone in which times without an offset are meant; none: the node's.
    #[must_use]
    pub fn zone(&self) -> Option<&TimeZone> {
        self.zone.as_ref()
    }

    /// The normalised name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, or the `bring` that gives it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match &self.kind {
            Type::Fixed(kind) => &kind.name,
            Type::Bring(source) => source.text(),
        }
    }

    /// Where its value comes from.
    #[must_use]
    pub fn value(&self) -> ValueSource {
        match &self.value {
            Value::Now => ValueSource::Now,
            Value::Constant(text) => ValueSource::Constant(text.clone()),
            Value::Bring(source) => ValueSource::Bring(source.text().to_owned()),
        }
    }

    /// Whether a message may lack it.
    #[must_use]
    pub fn optional(&self) -> bool {
        self.optional
    }

    fn source_text(&self) -> &str {
        match &self.value {
            Value::Bring(source) => source.text(),
            _ => "",
        }
    }
}

/// The mapping of a topic that names its columns.
#[derive(Debug, Clone)]
pub struct Inline {
    dbms: Name,
    table: Name,
    columns: Vec<Column>,
    starts_in_list: bool,
}

impl Inline {
    /// A mapping to a table; `dbms` and `table` are names, or a `bring` each.
    ///
    /// # Errors
    /// [`Status::MESSAGE_DECLARATION`] without columns or with two of one name; the errors of a malformed `bring`.
    pub fn new(dbms: &str, table: &str, columns: Vec<Column>) -> Result<Self, CommandError> {
        let wrong = |text: String| CommandError::new(Status::MESSAGE_DECLARATION, text);
        if columns.is_empty() {
            return Err(
                wrong("A topic without columns".into()).hint("add: column.<name>.<type> = \"bring [<attribute>]\"")
            );
        }
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].iter().any(|other| other.name == column.name) {
                return Err(wrong(format!("Column '{}' is declared twice", column.name)));
            }
        }
        let (dbms, table) = (Name::parse(dbms)?, Name::parse(table)?);
        let brings = columns.iter().filter_map(|column| match &column.value {
            Value::Bring(source) => Some(source),
            _ => None,
        });
        let starts_in_list = brings.clone().any(Source::starts_in_list);
        Ok(Self { dbms, table, columns, starts_in_list })
    }

    /// The database as written, `bring` included.
    #[must_use]
    pub fn dbms(&self) -> String {
        self.dbms.text()
    }

    /// The table as written, `bring` included.
    #[must_use]
    pub fn table(&self) -> String {
        self.table.text()
    }

    /// The columns in order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn starts_in_list(&self) -> bool {
        self.starts_in_list
    }

    pub(super) fn map(&self, root: &Node<'_>, parts: &mut Parts) -> Result<(), MappingError> {
        let document = Document::new(root);
        let cells: Vec<(Option<Cell<'_>>, Forms)> = self
            .columns
            .iter()
            .map(|column| Ok((column.find(&document), column.forms(&document)?)))
            .collect::<Result<_, _>>()?;
        for (column, (cell, forms)) in self.columns.iter().zip(&cells) {
            column.check(cell.as_ref(), forms)?;
        }
        let (dbms, table) = (self.dbms.resolve(&document), self.table.resolve(&document));
        let many = cells.iter().filter_map(|(cell, _)| match cell {
            Some(Cell::Many(found)) => Some(found.len()),
            _ => None,
        });
        // A list without elements makes no row; a message without lists makes one.
        let rows = many.chain([&dbms, &table].into_iter().filter(|n| n.rows() > 0).map(Names::rows)).max().unwrap_or(1);
        if self.columns.iter().any(|column| matches!(column.value, Value::Now)) {
            parts.make_now_text();
        }
        // Given back below: a part is borrowed while its row is written.
        let now_text = std::mem::take(&mut parts.now_text);
        let made = self.rows(rows, &dbms, &table, &cells, &now_text, parts);
        parts.now_text = now_text;
        made
    }

    fn rows(
        &self,
        rows: usize,
        dbms: &Names<'_>,
        table: &Names<'_>,
        cells: &[(Option<Cell<'_>>, Forms)],
        now_text: &str,
        parts: &mut Parts,
    ) -> Result<(), MappingError> {
        for row in 0..rows {
            let dbms = dbms.of(row).ok_or_else(|| MappingError::NoDbms { source_text: self.dbms() })?;
            let table = table.of(row).ok_or_else(|| MappingError::NoTable { source_text: self.table() })?;
            let part = parts.of(dbms, table, "0", "0", || self.declared(cells));
            let mut text = String::with_capacity(32 * self.columns.len());
            text.push('{');
            for (column, (cell, forms)) in self.columns.iter().zip(cells) {
                column.write(cell.as_ref(), forms.of(row), row, now_text, &mut text);
            }
            text.push('}');
            part.rows.push(text);
        }
        Ok(())
    }

    fn declared(&self, cells: &[(Option<Cell<'_>>, Forms)]) -> Vec<(String, String)> {
        let types = self.columns.iter().zip(cells).filter_map(|(column, (_, forms))| {
            let kind = match (&column.kind, forms) {
                (Type::Fixed(kind), _) => kind,
                (Type::Bring(_), Forms::Each(kinds)) => {
                    kinds.first().filter(|first| kinds.iter().all(|k| k == *first))?
                }
                (Type::Bring(_), Forms::All(_)) => return None,
            };
            Some((column.name.clone(), kind.name.clone().into_owned()))
        });
        types.collect()
    }
}

/// How the values of a column are written in each row.
enum Forms {
    All(Form),
    Each(Vec<DeclaredType>),
}

impl Forms {
    fn of(&self, row: usize) -> Form {
        match self {
            Forms::All(form) => *form,
            Forms::Each(kinds) => kinds.get(row).or_else(|| kinds.last()).map_or(Form::Verbatim, |kind| kind.form),
        }
    }
}

impl Column {
    fn find<'d>(&self, document: &Document<'d>) -> Option<Cell<'d>> {
        match &self.value {
            Value::Bring(source) => Some(source.find(document)),
            _ => None,
        }
    }

    fn forms(&self, document: &Document<'_>) -> Result<Forms, MappingError> {
        let source = match &self.kind {
            Type::Fixed(kind) => return Ok(Forms::All(kind.form)),
            Type::Bring(source) => source,
        };
        let found = match source.find(document) {
            Cell::One(found) => vec![found],
            Cell::Many(found) => found,
        };
        let kinds = found.iter().map(|found| {
            let name = found.as_ref().map(|found| found.plain().into_owned()).unwrap_or_default();
            DeclaredType::parse(&name).ok_or_else(|| MappingError::UnknownType { column: self.name.clone(), name })
        });
        kinds.collect::<Result<_, _>>().map(Forms::Each)
    }

    /// Refuses the message when a value is missing that must be there.
    fn check(&self, cell: Option<&Cell<'_>>, forms: &Forms) -> Result<(), MappingError> {
        let Some(cell) = cell else { return Ok(()) };
        if let (Forms::Each(kinds), Cell::Many(found)) = (forms, cell)
            && kinds.len() > 1
            && kinds.len() != found.len()
        {
            let (types, values) = (kinds.len(), found.len());
            return Err(MappingError::TypeCount { column: self.name.clone(), types, values });
        }
        let missing = match cell {
            Cell::One(found) => found.is_none(),
            Cell::Many(found) => found.iter().any(Option::is_none),
        };
        if missing && !self.optional { Err(self.missing()) } else { Ok(()) }
    }

    fn missing(&self) -> MappingError {
        MappingError::Missing { column: self.name.clone(), source_text: self.source_text().to_owned() }
    }

    fn write(&self, cell: Option<&Cell<'_>>, form: Form, row: usize, now: &str, out: &mut String) {
        let found = match cell {
            Some(Cell::One(found)) => found.as_ref(),
            Some(Cell::Many(found)) => found.get(row).and_then(Option::as_ref),
            None => None,
        };
        // Lists of different length: a row takes what exists.
        if matches!(self.value, Value::Bring(_)) && found.is_none() {
            return;
        }
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&self.key);
        match (&self.value, found) {
            (Value::Now, _) => out.push_str(now),
            (Value::Constant(text), _) => types::write_text(form, text, out),
            (Value::Bring(_), Some(found)) => match &self.zone {
                Some(zone) => zone::write(zone, found, form, out),
                None => found.write(form, out),
            },
            (Value::Bring(_), None) => {}
        }
    }
}
