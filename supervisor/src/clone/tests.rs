//! Clones of real folders.

use super::*;
use std::{
    fs::{File, Permissions},
    io::{Seek, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn order<'a>(from: &'a Path, to: &'a Path) -> Clone<'a> {
    Clone { from, to, keep: Keep::Scratch, skip: &nothing }
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A home with all kinds of things in it.
fn home(root: &Path) -> PathBuf {
    let home = root.join("home");
    fs::create_dir_all(home.join("data/application.db")).unwrap();
    fs::write(home.join("data/application.db/000001.ldb"), vec![7; 3 << 20]).unwrap();
    fs::write(home.join("data/application.db/LOCK"), "").unwrap();
    fs::write(home.join("key.json"), "secret").unwrap();
    fs::set_permissions(home.join("key.json"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(home.join("data"), Permissions::from_mode(0o700)).unwrap();
    symlink("key.json", home.join("link")).unwrap();
    UnixListener::bind(home.join("socket")).unwrap();
    home
}

#[test]
fn a_clone_has_the_bytes_modes_and_links_and_no_sockets_or_locks() {
    let dir = folder();
    let (from, to) = (home(dir.path()), dir.path().join("clone"));
    let cost = order(&from, &to).cost().unwrap();
    let cloned = order(&from, &to).make(&mut go_on).unwrap();
    assert_eq!((cloned.files, cloned.bytes, cloned.vanished), (2, (3 << 20) + 6, 0));
    assert_eq!(cost.files, cloned.files);
    assert!(cost.bytes >= 3 << 20 && cost.free > cost.bytes, "{cost:?}");
    assert_eq!(cloned.copied == 0, cost.way == Way::Reflink);
    assert_eq!(fs::read(to.join("data/application.db/000001.ldb")).unwrap(), vec![7; 3 << 20]);
    let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("key.json"), mode("data")), (0o600, 0o700));
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("key.json"));
    for left_out in ["socket", "data/application.db/LOCK"] {
        assert!(fs::symlink_metadata(to.join(left_out)).is_err(), "{left_out}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing stays beside the two");
}

#[test]
fn what_is_left_out_is_not_counted_either() {
    let dir = folder();
    let (from, to) = (home(dir.path()), dir.path().join("clone"));
    let skip = |path: &Path| path == Path::new("data");
    let clone = Clone { skip: &skip, keep: Keep::Durable, ..order(&from, &to) };
    assert_eq!(clone.cost().unwrap().files, 1);
    assert_eq!(clone.make(&mut go_on).unwrap().files, 1);
    assert!(!to.join("data").exists() && to.join("key.json").exists());
}

#[test]
fn a_clone_that_is_given_up_or_was_cut_off_leaves_nothing_and_the_next_one_works() {
    let dir = folder();
    let (from, to) = (home(dir.path()), dir.path().join("clone"));
    fs::create_dir_all(partial(&to).join("rest of a crash")).unwrap();
    fs::write(probe(&to), "").unwrap();
    let given_up = order(&from, &to).make(&mut |bytes| if bytes > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert!(matches!(given_up, Err(CloneError::GivenUp(_))), "{given_up:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::create_dir_all(partial(&to).join("rest of a crash")).unwrap();
    order(&from, &to).make(&mut go_on).unwrap();
    assert!(!to.join("rest of a crash").exists() && !partial(&to).exists());
    assert!(matches!(order(&from, &to).make(&mut go_on), Err(CloneError::Exists(_))));
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let dir = folder();
    let (from, to) = (dir.path().join("from"), dir.path().join("clone"));
    let cost = |bytes: u64| {
        fs::create_dir_all(&from).unwrap();
        File::create(from.join("big")).unwrap().write_all(&vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        order(&from, &to).cost().unwrap()
    };
    let cost = cost(4096);
    assert!(room(&order(&from, &to), &Cost { way: Way::Reflink, free: 0, ..cost }).is_ok());
    assert!(room(&order(&from, &to), &Cost { way: Way::Copy, free: SPARE + 4096, ..cost }).is_ok());
    let refused = room(&order(&from, &to), &Cost { way: Way::Copy, free: SPARE + 4095, ..cost }).unwrap_err();
    assert_eq!(refused.fault().code, crate::model::FaultCode::DiskFull);
    assert!(refused.to_string().contains("needs 4096 bytes") && refused.to_string().contains("has 4095"), "{refused}");
}

/// In a mount namespace of its own: a disk of four megabytes, and this test once more with it.
#[test]
fn a_disk_that_fills_up_in_the_middle_leaves_nothing_behind() {
    const DISK: &str = "DVB_TEST_SMALL_DISK";
    let dir = folder();
    let Some(small) = std::env::var_os(DISK).map(PathBuf::from) else {
        let script = r#"mount -t tmpfs -o size=4m tmpfs "$DVB_TEST_SMALL_DISK" && exec "$0" "$@""#;
        let mut again = crate::sys::command("unshare");
        again.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        again.args(["--exact", "--nocapture", "clone::tests::a_disk_that_fills_up_in_the_middle_leaves_nothing_behind"]);
        let inside = again.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env(DISK, dir.path()).output().unwrap();
        let said = [inside.stdout, inside.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if !said.contains("running 1 test") {
            return println!("SKIP: no mount namespace for us: {}", said.trim());
        }
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
        return;
    };
    let (from, to) = (dir.path().join("from"), small.join("clone"));
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join("big"), vec![1; 64 << 20]).unwrap();
    let listed = tree::list(&from, &nothing).unwrap();
    let full = listed.clone_into(&from, &partial(&to), &mut go_on).unwrap_err();
    clear(&to).unwrap();
    assert_eq!(full.fault().code, crate::model::FaultCode::DiskFull, "{full}");
    assert!(!partial(&to).exists());
}

#[test]
fn holes_stay_holes_and_keep_their_place() {
    let dir = folder();
    let (from, to) = (dir.path().join("from"), dir.path().join("clone"));
    fs::create_dir_all(&from).unwrap();
    let mut sparse = File::create(from.join("log")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.seek(io::SeekFrom::Start(40 << 20)).unwrap();
    sparse.write_all(b"in the middle").unwrap();
    order(&from, &to).make(&mut go_on).unwrap();
    let about = fs::metadata(to.join("log")).unwrap();
    assert_eq!(about.len(), 64 << 20);
    assert!(about.blocks() * 512 < 1 << 20, "{} blocks", about.blocks());
    let bytes = fs::read(to.join("log")).unwrap();
    assert_eq!(&bytes[40 << 20..(40 << 20) + 13], b"in the middle");
}

#[test]
fn a_file_that_vanishes_between_the_look_and_the_copy_is_counted() {
    let dir = folder();
    let (from, to) = (home(dir.path()), dir.path().join("clone"));
    let listed = tree::list(&from, &nothing).unwrap();
    fs::remove_file(from.join("data/application.db/000001.ldb")).unwrap();
    let cloned = listed.clone_into(&from, &to, &mut go_on).unwrap();
    assert_eq!((cloned.files, cloned.vanished), (1, 1));
}

#[test]
fn another_file_system_gets_a_copy() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIP: there is no /dev/shm");
        return;
    };
    let dir = folder();
    let (from, to) = (home(dir.path()), other.path().join("clone"));
    assert_eq!(order(&from, &to).cost().unwrap().way, Way::Copy);
    let cloned = order(&from, &to).make(&mut go_on).unwrap();
    assert_eq!(cloned.copied, cloned.bytes);
}

#[test]
fn what_is_no_folder_is_named() {
    let dir = folder();
    fs::write(dir.path().join("file"), "").unwrap();
    for from in ["file", "nowhere"] {
        let refused = order(&dir.path().join(from), &dir.path().join("clone")).cost().unwrap_err();
        assert!(refused.to_string().contains(from), "{refused}");
    }
}
