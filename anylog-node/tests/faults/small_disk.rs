//! A disk that is small enough to be filled.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own. Unmounted at the end.
pub(crate) struct SmallDisk {
    directory: tempfile::TempDir,
    point: PathBuf,
}

impl SmallDisk {
    /// Mounts an ext4 file system in a file. None where that is not permitted; the test then says so and passes.
    pub(crate) fn mount(megabytes: u64) -> Option<Self> {
        Self::mount_with(megabytes, 4096)
    }

    /// The same with blocks of so many bytes. Those of file systems below 512 MB have 1,024 when nothing is said.
    pub(crate) fn mount_with(megabytes: u64, block: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (image, point) = (directory.path().join("image"), directory.path().join("disk"));
        fs::create_dir(&point).unwrap();
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() { Ok(()) } else { Err(text) }
        };
        let (image, at) = (image.to_str().unwrap(), point.to_str().unwrap());
        // Nothing is kept for root, so that full means full.
        let mounted = run("mkfs.ext4", &["-q", "-m", "0", "-b", &block.to_string(), "-F", image])
            .and_then(|()| run("mount", &["-o", "loop", image, at]))
            .or_else(|_| run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs", at]));
        match mounted {
            Ok(()) => Some(Self { point, directory }),
            Err(reason) => {
                eprintln!("SKIPPED: a small file system cannot be mounted here ({reason}); run it as root");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    fn ballast(&self) -> PathBuf {
        self.point.join("ballast")
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.point).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Writes until so many bytes are left, as far as the file system lets itself be measured.
    pub(crate) fn fill_to(&self, left: u64) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        loop {
            let free = self.free();
            if free <= left {
                return;
            }
            let piece = usize::try_from((free - left).min(1 << 20)).unwrap();
            if file.write_all(&vec![0x5A; piece]).and_then(|()| file.sync_data()).is_err() {
                return;
            }
        }
    }

    /// Gives the space back.
    pub(crate) fn free_space(&self) {
        fs::remove_file(self.ballast()).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let point = self.point.to_str().unwrap();
        // The node may still be closing its files.
        for _ in 0..100 {
            if Command::new("umount").arg(point).output().is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        eprintln!("{} is still mounted, in {}", self.point.display(), self.directory.path().display());
    }
}
