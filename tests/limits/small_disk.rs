//! A small file system of a test's own: a loop-mounted ext4, which only root can make. Where it
//! cannot be made, a line says so that `tools/test.sh` repeats at its end, and the test fails when
//! `CI` is set.

#![allow(clippy::disallowed_methods, reason = "a test makes its file system")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::broker::{Setup, fresh_folder};

/// A small ext4, unmounted when dropped.
pub(crate) struct SmallDisk {
    mount: PathBuf,
    /// Leads to a folder on it; the broker's log lies beside this and not on the disk.
    data: PathBuf,
}

impl SmallDisk {
    fn new(name: &str, mib: u64) -> Result<Self, String> {
        // A run that was killed may have left its own mounted.
        let left = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(name)
            .join("mount");
        let _ = run("umount", &["-l", &left.display().to_string()]);
        let folder = fresh_folder(name);
        let (image, mount) = (folder.join("disk"), folder.join("mount"));
        let file = fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let (image, mount_name) = (image.display().to_string(), mount.display().to_string());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &mount_name])?;
        let data = folder.join("data");
        fs::create_dir_all(mount.join("data")).unwrap();
        std::os::unix::fs::symlink(mount.join("data"), &data).unwrap();
        Ok(Self { mount, data })
    }

    /// Fills what is left up to `left` bytes with one file; gives its path.
    pub(crate) fn fill(&self, name: &str, left: u64) -> PathBuf {
        let path = self.mount.join(name);
        let mut file = fs::File::create(&path).unwrap();
        let space = nix::sys::statvfs::statvfs(&self.mount).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        let mut size = free.saturating_sub(left);
        let block = [0; 4096];
        while size > 0 && file.write_all(&block).is_ok() {
            size = size.saturating_sub(4096);
        }
        // With no space at all the last blocks do not find any: that is what was wanted.
        let _ = file.sync_all();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a broker that was just killed may still be letting go.
        let mount = self.mount.display().to_string();
        if let Err(error) = run("umount", &["-l", &mount]) {
            eprintln!("{error}");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        // One line, since one line is repeated at the end of the test command.
        Err(format!("{program}: {}", said.trim().replace('\n', "; ")))
    }
}

/// The disk, or the reason why there is none, said loudly.
pub(crate) fn disk(name: &str) -> Option<SmallDisk> {
    match SmallDisk::new(name, 64) {
        Ok(disk) => Some(disk),
        Err(reason) => {
            println!("NOT RUN full disk ({name}): no loop-mounted file system: {reason}");
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this: {reason}"
            );
            None
        }
    }
}

/// A broker on it, with small segments.
pub(crate) fn setup(disk: &SmallDisk) -> Setup {
    Setup::new(&disk.data)
        .config("[journal]\nsegment_size = \"1MiB\"\n[limits]\nblock_cache_size = \"4MiB\"\n")
}
