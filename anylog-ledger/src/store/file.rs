//! The local copy: `blockchain.json`, one policy a line, and its checks beside it.
//!
//! # Format
//!
//! `blockchain.json` is plain: each line is one policy as JSON, ended by a line feed; blank lines mean nothing. Two kinds of line are
//! not policies but what this node did and the master may not know yet: `{"deleted": {"id": X, "date": D, "ledger": "local"}}`
//! and `{"replaced": {"id": X, "ledger": "local"}}`.
//!
//! `blockchain.json.check` has one line for each of its lines: `<md5 of the line> <policy id> <first 8 digits of the md5 of what stands before>`.
//! A line of the copy whose MD5 is not there is damaged; a check whose line is not there is a line lost. When a check line fails its own
//! sum, or there is no check file, lines without check are taken if they are policies.
//!
//! # Writing
//!
//! Policies are appended, then their checks; [`LedgerFile::sync`] brings both to stable storage. A rewrite makes a complete new file: temporary name, sync, the present copy becomes `.old`,
//! rename, sync of the directory. The checks of the new generation lie in `.check.new` until then, so whichever file a crash leaves
//! behind finds its own checks.
//!
//! # Reading
//!
//! Lines at the end that have no check yet are whole when they are policies and every check found its line: a crash fell between the two.
//! Damage never prevents a start: damaged lines go to `blockchain.json.damaged`, and a lost line that is found intact in the previous
//! generation (`.old`) is taken from there. [`Loaded::damage`] says what happened.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_core::reply::json;
use serde_json::json;

use crate::policy::id::md5_hex;
use crate::snapshot::{Contents, Deletion};
use crate::{LedgerError, Policy};

const DELETED: &str = "deleted";
const REPLACED: &str = "replaced";

/// What was read, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The intact lines.
    pub contents: Contents,
    /// Sentences for the log, one for each damaged or lost line.
    pub damage: Vec<String>,
}

/// The file of the local copy.
#[derive(Debug, Clone)]
pub struct LedgerFile {
    path: PathBuf,
}

impl LedgerFile {
    /// The local copy at this path; nothing is read or made yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file beside the copy: `blockchain.old` for `old`.
    #[must_use]
    pub fn sibling(&self, extension: &str) -> PathBuf {
        self.path.with_extension(extension)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Reads the copy. An absent file is an empty ledger. When anything was damaged the copy is written anew from what is intact.
    ///
    /// # Errors
    /// Only what the operating system refuses: reading an existing file, writing the repaired one.
    pub fn load(&self) -> Result<Loaded, LedgerError> {
        let mut loaded = Loaded::default();
        let mut reader = Reader::default();
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.previous_when_lost(&mut loaded)?,
            Err(error) => return Err(self.failed(&error)),
        };
        let mut checks = self.checks_for(&bytes);
        let checked = !checks.lines.is_empty() && !checks.damaged;
        if checks.damaged {
            loaded.damage.push(format!("the checks beside {} are damaged and made anew", self.path.display()));
        }
        let (text_lines, torn) = lines(&bytes);
        let known: Vec<bool> = text_lines
            .iter()
            .map(|(_, line)| std::str::from_utf8(line).is_ok_and(|text| checks.take(&md5_hex(text))))
            .collect();
        // Lines appended just before a crash have no checks yet.
        let appended = known.iter().rposition(|known| *known).map_or(0, |last| last + 1);
        let complete = checks.lines.is_empty();
        let mut unchecked = false;
        let mut damaged = Vec::new();
        for (at, (number, line)) in text_lines.into_iter().enumerate() {
            let verdict = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(|text| {
                if !known[at] && checked {
                    let is_torn = line.as_ptr_range().end == bytes.as_ptr_range().end;
                    if at < appended || !complete || is_torn || Policy::from_json_text(text).is_err() {
                        return Err("its checksum is not the recorded one".to_owned());
                    }
                    unchecked = true;
                }
                reader.take(text).map_err(|error| error.to_string())
            });
            if let Err(reason) = verdict {
                loaded.damage.push(format!("line {number} of {} is damaged: {reason}", self.path.display()));
                damaged.extend_from_slice(line);
                damaged.push(b'\n');
            }
        }
        if torn {
            loaded.damage.push(format!("the last line of {} was not ended", self.path.display()));
        }
        self.restore(checks.lines, &mut reader, &mut loaded.damage)?;
        loaded.contents = reader.finish();
        if !damaged.is_empty() {
            append(&self.beside(".damaged"), &damaged).map_err(|error| self.failed(&error))?;
        }
        if unchecked || !loaded.damage.is_empty() {
            self.rewrite_keeping_old(&loaded.contents)?;
        }
        Ok(loaded)
    }

    /// When a crash fell between the two renames of a rewrite there is no copy but its previous generation.
    fn previous_when_lost(&self, loaded: &mut Loaded) -> Result<Vec<u8>, LedgerError> {
        if !self.beside(".check").exists() && !self.beside(".check.new").exists() {
            return Ok(Vec::new());
        }
        loaded.damage.push(format!("{} is missing; its previous copy is used", self.path.display()));
        self.previous()
    }

    /// The previous generation; empty when there is none.
    fn previous(&self) -> Result<Vec<u8>, LedgerError> {
        match read(&self.sibling("old")) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The checks that fit the file best: those of its own generation, or of the one that a crash left behind.
    fn checks_for(&self, bytes: &[u8]) -> Checks {
        let (text_lines, _) = lines(bytes);
        let digests: Vec<String> =
            text_lines.iter().filter_map(|(_, line)| std::str::from_utf8(line).ok()).map(md5_hex).collect();
        let fit = |checks: &Checks| {
            let found = digests.iter().filter(|digest| checks.lines.contains_key(*digest)).count();
            // Of two that know as many lines, the one that knows fewer others.
            (found, std::cmp::Reverse(checks.lines.len()))
        };
        let candidates = [self.beside(".check"), self.beside(".check.new")].map(|path| read_checks(&path));
        candidates
            .into_iter()
            .filter(|checks| !checks.lines.is_empty() || checks.damaged)
            .max_by_key(fit)
            .unwrap_or_default()
    }

    /// Looks for lines that are recorded but were not found, in the previous generation.
    fn restore(
        &self,
        lost: HashMap<String, (String, usize)>,
        reader: &mut Reader,
        damage: &mut Vec<String>,
    ) -> Result<(), LedgerError> {
        if lost.is_empty() {
            return Ok(());
        }
        let previous = self.previous()?;
        let mut found: HashMap<String, &str> = HashMap::new();
        for (_, line) in lines(&previous).0 {
            if let Ok(text) = std::str::from_utf8(line) {
                found.insert(md5_hex(text), text);
            }
        }
        let mut lost: Vec<(String, String)> = lost.into_iter().map(|(digest, (id, _))| (digest, id)).collect();
        lost.sort_by(|(_, a), (_, b)| a.cmp(b));
        for (digest, id) in lost {
            // A younger line of the same policy is worth more than what is lost.
            let superseded = reader.places.contains_key(&id);
            let restored = superseded || found.get(&digest).is_some_and(|text| reader.take(text).is_ok());
            damage.push(if restored {
                format!("policy {id} was lost from {} and restored from the previous copy", self.path.display())
            } else {
                format!("policy {id} was lost from {}; synchronisation brings it back", self.path.display())
            });
        }
        Ok(())
    }

    /// Appends policies, each with its check. [`Self::sync`] brings them to stable storage.
    ///
    /// # Errors
    /// What the operating system refuses. The file is then as it was.
    pub fn append(&self, policies: &[Arc<Policy>]) -> Result<(), LedgerError> {
        self.append_lines(policies.iter().map(|policy| (policy.to_json_text(), policy.id())))
    }

    /// Appends the note that a policy was deleted here and returns when it is on stable storage.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn append_deleted(&self, deletion: &Deletion) -> Result<(), LedgerError> {
        self.append_lines([(deleted_line(deletion), deletion.id.as_str())])?;
        self.sync()
    }

    fn append_lines<'a>(&self, lines: impl IntoIterator<Item = (String, &'a str)>) -> Result<(), LedgerError> {
        let (mut text, mut checks) = (String::new(), String::new());
        for (line, id) in lines {
            checks.push_str(&check_line(&line, id));
            text.push_str(&line);
            text.push('\n');
        }
        self.make_directory()?;
        append(&self.path, text.as_bytes()).map_err(|error| self.failed(&error))?;
        append(&self.beside(".check"), checks.as_bytes()).map_err(|error| self.failed(&error))
    }

    /// Returns when what was appended is on stable storage. The checks follow when they can: lines at the end need none.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn sync(&self) -> Result<(), LedgerError> {
        match File::open(&self.path) {
            Ok(file) => file.sync_data().map_err(|error| self.failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Notes beside the copy which source it follows, on stable storage.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn note_source(&self, source: &str) -> Result<(), LedgerError> {
        Self::export(&self.sibling("source"), [source.to_owned()]).map(|_| ())
    }

    /// Replaces the whole copy; the present one becomes `.old`. Returns when all is on stable storage.
    ///
    /// # Errors
    /// What the operating system refuses; the present copy is then unchanged.
    pub fn rewrite(&self, contents: &Contents) -> Result<(), LedgerError> {
        self.write_generation(contents, true)
    }

    /// As [`Self::rewrite`], but a damaged copy does not push out the good previous one.
    fn rewrite_keeping_old(&self, contents: &Contents) -> Result<(), LedgerError> {
        self.write_generation(contents, false)
    }

    fn write_generation(&self, contents: &Contents, keep_present: bool) -> Result<(), LedgerError> {
        self.make_directory()?;
        let mut text = String::new();
        let mut checks = String::new();
        for (line, id) in text_lines(contents) {
            checks.push_str(&check_line(&line, &id));
            text.push_str(&line);
            text.push('\n');
        }
        let failed = |error: io::Error| self.failed(&error);
        let (temporary, checks_new) = (self.beside(".tmp"), self.beside(".check.new"));
        write_synced(&temporary, text.as_bytes()).map_err(failed)?;
        write_synced(&checks_new, checks.as_bytes()).map_err(failed)?;
        if keep_present && self.path.exists() {
            fs::rename(&self.path, self.sibling("old")).map_err(failed)?;
        }
        fs::rename(&temporary, &self.path).map_err(failed)?;
        fs::rename(&checks_new, self.beside(".check")).map_err(failed)?;
        self.sync_directory().map_err(failed)
    }

    /// Writes policies into another file, one a line, through a temporary name.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn export(path: &Path, lines: impl IntoIterator<Item = String>) -> Result<usize, LedgerError> {
        let file = Self::new(path);
        file.make_directory()?;
        let mut text = String::new();
        let mut count = 0;
        for line in lines {
            text.push_str(&line);
            text.push('\n');
            count += 1;
        }
        let temporary = file.beside(".tmp");
        write_synced(&temporary, text.as_bytes()).map_err(|error| file.failed(&error))?;
        fs::rename(&temporary, path).map_err(|error| file.failed(&error))?;
        Ok(count)
    }

    /// The policies of another file of the same format; a line that is no policy is an error that names it.
    ///
    /// # Errors
    /// An unreadable file, or a line that is no policy.
    pub fn import(path: &Path) -> Result<Contents, LedgerError> {
        let file = Self::new(path);
        let bytes = read(path).map_err(|error| file.failed(&error))?;
        let mut reader = Reader::default();
        for (number, line) in lines(&bytes).0 {
            let wrong = |reason: String| LedgerError::File {
                path: path.display().to_string(),
                reason: format!("line {number} is not a policy: {reason}"),
            };
            let text = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
            reader.take(text).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(reader.finish())
    }

    fn make_directory(&self) -> Result<(), LedgerError> {
        match self.path.parent() {
            Some(directory) => fs::create_dir_all(directory).map_err(|error| self.failed(&error)),
            None => Ok(()),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: &io::Error) -> LedgerError {
        let path = self.path.display().to_string();
        if error.kind() == io::ErrorKind::StorageFull {
            return LedgerError::DiskFull { path };
        }
        LedgerError::File { path, reason: error.to_string() }
    }
}

fn deleted_line(deletion: &Deletion) -> String {
    json::text(&json!({DELETED: {"id": deletion.id, "date": deletion.date, "ledger": "local"}}))
}

fn replaced_line(id: &str) -> String {
    json::text(&json!({REPLACED: {"id": id, "ledger": "local"}}))
}

fn text_lines(contents: &Contents) -> impl Iterator<Item = (String, String)> + '_ {
    let policies = contents.policies.iter().map(|policy| (policy.to_json_text(), policy.id().to_owned()));
    let deleted = contents.deleted.iter().map(|deletion| (deleted_line(deletion), deletion.id.clone()));
    let replaced = contents.replaced.iter().map(|id| (replaced_line(id), id.clone()));
    policies.chain(deleted).chain(replaced)
}

/// Collects lines into contents.
#[derive(Default)]
struct Reader {
    policies: Vec<Option<Arc<Policy>>>,
    places: HashMap<String, usize>,
    deleted: Vec<Deletion>,
    replaced: Vec<String>,
}

impl Reader {
    /// Takes one line: a policy, or a note of what was done here.
    fn take(&mut self, text: &str) -> Result<(), LedgerError> {
        let policy = Policy::from_json_text(text)?;
        let id = policy.id().to_owned();
        match policy.kind() {
            DELETED if policy.is_local() => {
                if let Some(place) = self.places.remove(&id) {
                    self.policies[place] = None;
                }
                let date = policy.text("date").unwrap_or_default().to_owned();
                self.deleted.retain(|known| known.id != id);
                self.deleted.push(Deletion { id, date });
            }
            REPLACED if policy.is_local() => {
                if !self.replaced.contains(&id) {
                    self.replaced.push(id);
                }
            }
            _ if id.is_empty() => return Err(LedgerError::Structure { problem: "this one has no id".to_owned() }),
            _ => {
                // What was deleted and written again is there.
                self.deleted.retain(|known| known.id != id);
                // A policy that went and came again before the file was made anew stands there twice: the later line counts.
                match self.places.get(&id).and_then(|place| self.policies.get_mut(*place)) {
                    Some(slot) => *slot = Some(Arc::new(policy)),
                    None => {
                        self.places.insert(id, self.policies.len());
                        self.policies.push(Some(Arc::new(policy)));
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Contents {
        let policies = self.policies.into_iter().flatten().collect();
        Contents { policies, deleted: self.deleted, replaced: self.replaced }
    }
}

/// The lines of a file that are not blank, with their numbers, and whether the last one lacks its end.
fn lines(bytes: &[u8]) -> (Vec<(usize, &[u8])>, bool) {
    let torn = bytes.last().is_some_and(|last| *last != b'\n');
    let numbered = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = numbered.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_ascii().is_empty());
    (lines.collect(), torn)
}

fn check_line(line: &str, id: &str) -> String {
    // Ids are the user's to choose; one with a blank or a line end is recorded without it.
    let id: String = id.chars().filter(|c| !c.is_whitespace()).collect();
    let body = format!("{} {id}", md5_hex(line));
    format!("{body} {}\n", &md5_hex(&body)[..8])
}

/// What a check file says.
#[derive(Debug, Default)]
struct Checks {
    /// MD5 of a line, the id of its policy, and how often the line is there: what was deleted may come again unchanged.
    lines: HashMap<String, (String, usize)>,
    /// Whether a line of it fails its own sum. Then a line of the copy without check is taken when it is a policy: it is the check
    /// that was damaged.
    damaged: bool,
}

impl Checks {
    /// Whether a line with this MD5 is recorded and was not taken yet.
    fn take(&mut self, digest: &str) -> bool {
        let Some((_, count)) = self.lines.get_mut(digest) else { return false };
        *count -= 1;
        if *count == 0 {
            self.lines.remove(digest);
        }
        true
    }
}

fn read_checks(path: &Path) -> Checks {
    let mut checks = Checks::default();
    let Ok(bytes) = read(path) else { return checks };
    let text = String::from_utf8_lossy(&bytes);
    let check = |line: &str| {
        let (body, sum) = line.rsplit_once(' ')?;
        let (digest, id) = body.split_once(' ')?;
        (md5_hex(body)[..8] == *sum).then(|| (digest.to_owned(), id.to_owned()))
    };
    for line in text.lines() {
        match check(line) {
            Some((digest, id)) => checks.lines.entry(digest).or_insert((id, 0)).1 += 1,
            None => checks.damaged = true,
        }
    }
    checks
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let written = file.write_all(bytes);
    if written.is_err() {
        // A part of a line must not become the beginning of the next one.
        file.set_len(length)?;
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
