// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ACPI namespace (ACPI 6.5, 5.3): scopes and devices, with the data objects in them.

use std::collections::{BTreeMap, BTreeSet};

use super::asl::Term;

/// A scope or device from which everything must be taken: what is left at the end has not been understood.
pub struct Object {
    /// Its full path: `\_SB.COM1`.
    pub path: String,
    names: BTreeMap<String, Term>,
}

impl Object {
    /// Takes a data object.
    pub fn take(&mut self, name: &str) -> Term {
        self.take_if_there(name).unwrap_or_else(|| panic!("{} has no {name}", self.path))
    }

    /// Takes a data object, if there is one.
    pub fn take_if_there(&mut self, name: &str) -> Option<Term> {
        self.names.remove(name)
    }

    /// Whether a data object is there that was not taken.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes a number.
    pub fn integer(&mut self, name: &str) -> u64 {
        self.take(name).integer()
    }

    /// Takes a data object that has only one value that the reader knows.
    pub fn expect(&mut self, name: &str, known: u64) {
        assert_eq!(self.integer(name), known, "{}.{name}", self.path);
    }

    /// Takes `_HID` or `_CID`: a string, or a compressed EISA identifier; if there is one.
    pub fn identifier(&mut self, name: &str) -> Option<String> {
        let identifier = self.take_if_there(name)?;
        Some(match &identifier {
            Term::Call { operator, arguments, .. } if operator == "EisaId" => {
                let [identifier] = &arguments[..] else { panic!("{}: {arguments:?}", self.path) };
                identifier.string().to_owned()
            }
            other => other.string().to_owned(),
        })
    }

    /// Fails if anything was not taken.
    pub fn done(self) {
        let left: Vec<_> = self.names.keys().collect();
        assert!(left.is_empty(), "{}: objects that the reader does not know: {left:?}", self.path);
    }
}

/// Names of all objects.
pub struct Paths(BTreeSet<String>);

impl Paths {
    /// The object that `name` stands for in `scope` (ACPI 6.5, 5.3: a single segment is searched upwards).
    pub fn resolve(&self, name: &str, scope: &str) -> String {
        assert!(!name.contains('^'), "{scope}: a parent prefix: {name}");
        let found = if name.starts_with('\\') {
            self.0.contains(name).then(|| name.to_owned())
        } else if name.contains('.') {
            Some(below(scope, name)).filter(|path| self.0.contains(path))
        } else {
            let scopes = std::iter::successors(Some(scope), |scope| parent(scope));
            scopes.map(|scope| below(scope, name)).find(|path| self.0.contains(path))
        };
        found.unwrap_or_else(|| panic!("{scope}: there is no {name}"))
    }
}

/// Loads a DSDT: the scopes first, then the devices in the order of the table.
pub fn load(table: &Term) -> (Vec<Object>, Paths) {
    let ("DefinitionBlock", [_, signature, ..], body) = table.call() else { panic!("no table: {table:?}") };
    assert_eq!(signature.string(), "DSDT");
    let mut objects: Vec<_> = ["\\", "\\_SB"].map(empty).into();
    let mut paths = Paths(objects.iter().map(|object| object.path.clone()).collect());
    fill(&mut objects, &mut paths, "\\", body);
    (objects, paths)
}

/// The object in which `path` is; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('.') {
        Some((parent, _)) => Some(parent),
        None => (path != "\\").then_some("\\"),
    }
}

fn fill(objects: &mut Vec<Object>, paths: &mut Paths, scope: &str, body: &[Term]) {
    for term in body {
        match term.call() {
            ("Name", [name, value], []) => {
                let name = name.name();
                let (scope, name) = match parent(name).filter(|_| name.starts_with('\\')) {
                    Some(parent) => (parent, name.trim_start_matches(parent).trim_start_matches('.')),
                    None => (scope, name),
                };
                assert!(!name.contains(['\\', '.', '^']), "{scope}: a name elsewhere: {name}");
                let object = objects.iter_mut().find(|object| object.path == scope);
                let names = &mut object.unwrap_or_else(|| panic!("there is no {scope}")).names;
                assert!(names.insert(name.to_owned(), value.clone()).is_none(), "{scope}.{name} twice");
            }
            ("Scope", [name], body) => {
                let path = paths.resolve(name.name(), scope);
                fill(objects, paths, &path, body);
            }
            ("Device", [name], body) => {
                let path = below(scope, name.name());
                assert!(paths.0.insert(path.clone()), "{path} twice");
                objects.push(empty(&path));
                fill(objects, paths, &path, body);
            }
            other => panic!("{scope}: ASL that the reader does not know: {other:?}"),
        }
    }
}

fn below(scope: &str, name: &str) -> String {
    assert!(!name.starts_with('\\'), "{scope}: {name}");
    if scope == "\\" { format!("\\{name}") } else { format!("{scope}.{name}") }
}

fn empty(path: &str) -> Object {
    Object { path: path.to_owned(), names: BTreeMap::new() }
}
