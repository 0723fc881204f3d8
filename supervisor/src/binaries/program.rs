//! Whether a file is a program that this machine can run, and which shared libraries it brings along.

use super::BinaryError;
use object::{
    Endianness,
    elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64},
    read::{
        ReadCache,
        elf::{FileHeader, ProgramHeader},
    },
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Shared libraries of one program are few; more is a loop or a trick.
const MOST_LIBRARIES: usize = 64;

/// What the first bytes of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Elf {
        machine: u16,
    },
    Script {
        interpreter: PathBuf,
    },
    /// In words.
    Other(&'static str),
}

/// An absolute path to a regular, executable file that this machine can run; else the reason why not.
pub(super) fn check(path: &Path) -> Result<(), BinaryError> {
    check_file(path)?;
    check_content(path)
}

fn check_file(path: &Path) -> Result<(), BinaryError> {
    let at = path.to_owned();
    if !path.is_absolute() {
        return Err(BinaryError::Relative { path: at });
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Err(BinaryError::Missing { path: at });
        }
        Err(error) => return Err(BinaryError::io("look at", path)(error)),
    };
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("folder"),
        () if kind.is_fifo() => Some("named pipe"),
        () if kind.is_socket() => Some("socket"),
        () => Some("device"),
    };
    if let Some(what) = what {
        return Err(BinaryError::NotAFile { path: at, what });
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(BinaryError::NotExecutable { path: at });
    }
    Ok(())
}

/// What the kernel would say at exec, said beforehand and in words.
pub(super) fn check_content(path: &Path) -> Result<(), BinaryError> {
    let mut head = Vec::with_capacity(256);
    File::open(path).and_then(|file| file.take(256).read_to_end(&mut head)).map_err(BinaryError::io("read", path))?;
    let interpreter = match identify(&head) {
        Kind::Other(reason) => return Err(BinaryError::NotAProgram { path: path.to_owned(), reason: reason.to_owned() }),
        Kind::Elf { machine } if machine != host_machine() => {
            let (found, host) = (machine_name(machine), std::env::consts::ARCH);
            return Err(BinaryError::WrongArchitecture { path: path.to_owned(), found, host });
        }
        Kind::Elf { .. } => read_elf(path)?.interpreter,
        Kind::Script { interpreter } => Some(interpreter),
    };
    match interpreter.filter(|interpreter| !interpreter.exists()) {
        Some(interpreter) => Err(BinaryError::NoInterpreter { path: path.to_owned(), interpreter }),
        None => Ok(()),
    }
}

fn identify(head: &[u8]) -> Kind {
    match head {
        [] => Kind::Other("it is empty"),
        [0x7f, b'E', b'L', b'F', _, data, ..] if head.len() >= 20 => {
            let machine = [head[18], head[19]];
            Kind::Elf { machine: if *data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) } }
        }
        [b'#', b'!', rest @ ..] => {
            let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let word = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty());
            word.map_or(Kind::Other("its #! line names no interpreter"), |word| Kind::Script {
                interpreter: PathBuf::from(std::ffi::OsStr::from_bytes(word)),
            })
        }
        [0x1f, 0x8b, ..] | [b'P', b'K', 3, 4, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Kind::Other("it is an archive; unpack it first")
        }
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => Kind::Other("it is a macOS program"),
        [b'M', b'Z', ..] => Kind::Other("it is a Windows program"),
        _ => Kind::Other("it is neither an ELF program nor a script with a #! line"),
    }
}

/// ELF numbers of the architectures that Rust names.
const MACHINES: [(u16, &str); 8] =
    [(62, "x86_64"), (183, "aarch64"), (243, "riscv64"), (3, "x86"), (40, "arm"), (21, "powerpc64"), (22, "s390x"), (258, "loongarch64")];

fn host_machine() -> u16 {
    MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map_or(0, |(number, _)| *number)
}

fn machine_name(number: u16) -> String {
    MACHINES.iter().find(|(known, _)| *known == number).map_or_else(|| format!("ELF machine {number}"), |(_, name)| (*name).to_owned())
}

#[derive(Debug, Default)]
struct Elf {
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
    /// Folders of RUNPATH and RPATH, as written.
    search: Vec<String>,
}

fn read_elf(path: &Path) -> Result<Elf, BinaryError> {
    let file = File::open(path).map_err(BinaryError::io("read", path))?;
    parse_elf(&ReadCache::new(file))
        .map_err(|error| BinaryError::NotAProgram { path: path.to_owned(), reason: format!("its ELF is damaged: {error}") })
}

fn parse_elf(data: &ReadCache<File>) -> Result<Elf, object::read::Error> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let mut elf = Elf::default();
    for segment in header.program_headers(endian, data)? {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            elf.interpreter = Some(PathBuf::from(std::ffi::OsStr::from_bytes(interpreter)));
        }
    }
    let table = header.sections(endian, data)?.dynamic_table(endian, data)?;
    for entry in table.iter() {
        let text = || table.string(entry).map(|text| String::from_utf8_lossy(text).into_owned());
        match entry.tag {
            DT_NEEDED => elf.needed.push(text()?),
            DT_RUNPATH | DT_RPATH => elf.search.extend(text()?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Ok(elf)
}

/// Libraries that a program finds through its own search path outside the system's folders, by file name: they go where it goes.
/// (A Go build that links against C finds them in the module cache, which may be cleaned at any time. A program that was copied
/// with its libraries, such as one of another home's cache, has them in `lib/` beside it.)
pub(super) fn own_libraries(program: &Path) -> Result<BTreeMap<String, PathBuf>, BinaryError> {
    let mut found = BTreeMap::new();
    let mut open = vec![program.to_owned()];
    while let Some(path) = open.pop() {
        let mut head = [0; 20];
        let is_elf = File::open(&path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && matches!(identify(&head), Kind::Elf { .. });
        if !is_elf {
            continue;
        }
        let elf = read_elf(&path)?;
        let origin = path.parent().unwrap_or(Path::new("/"));
        let beside = (!elf.search.is_empty()).then(|| origin.join(super::cache::LIBRARIES));
        for name in elf.needed.into_iter().filter(|name| !name.contains('/')) {
            let folders = elf.search.iter().filter_map(|folder| search_folder(folder, origin)).chain(beside.clone());
            let there = folders.map(|folder| folder.join(&name)).find(|path| path.is_file());
            if let Some(library) = there
                && !found.contains_key(&name)
                && found.len() < MOST_LIBRARIES
            {
                open.push(library.clone());
                found.insert(name, library);
            }
        }
    }
    Ok(found)
}

/// None for the system's own folders, which stay, and for what cannot be resolved here.
fn search_folder(text: &str, origin: &Path) -> Option<PathBuf> {
    let text = text.replace("${ORIGIN}", "$ORIGIN");
    let folder = match text.strip_prefix("$ORIGIN") {
        Some(rest) => origin.join(rest.trim_start_matches('/')),
        None => PathBuf::from(&text),
    };
    let system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].iter().any(|system| folder.starts_with(system));
    (folder.is_absolute() && !system && !text.trim_start_matches("$ORIGIN").contains('$')).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let check = |head: &[u8], want: Kind| assert_eq!(identify(head), want);
        check(b"#!/bin/sh -e\necho", Kind::Script { interpreter: "/bin/sh".into() });
        check(b"#! /usr/bin/env python3\n", Kind::Script { interpreter: "/usr/bin/env".into() });
        check(b"#!\n", Kind::Other("its #! line names no interpreter"));
        check(b"", Kind::Other("it is empty"));
        check(b"PK\x03\x04", Kind::Other("it is an archive; unpack it first"));
        check(b"hello", Kind::Other("it is neither an ELF program nor a script with a #! line"));
        let mut elf = vec![0; 20];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 183;
        check(&elf, Kind::Elf { machine: 183 });
        check(&elf[..10], Kind::Other("it is neither an ELF program nor a script with a #! line"));
    }

    #[test]
    fn this_very_program_can_run_here() {
        check(&std::env::current_exe().unwrap()).unwrap();
    }

    #[test]
    fn search_folders_leave_the_system_alone() {
        let check = |text: &str, want: Option<&str>| assert_eq!(search_folder(text, Path::new("/srv/x/bin")), want.map(PathBuf::from), "{text}");
        check("/usr/lib/x86_64-linux-gnu", None);
        check("/home/me/lib", Some("/home/me/lib"));
        check("$ORIGIN/../lib", Some("/srv/x/bin/../lib"));
        check("${ORIGIN}", Some("/srv/x/bin"));
        check("$LIB/x", None);
        check("", None);
    }
}
