//! The names of the file and its directories: they have to reach the disk as the file's contents do.

use std::{fs, io, path::Path};

/// Makes a directory and those above it. Returns how many there were to make.
pub(super) fn make(directory: &Path) -> io::Result<usize> {
    let missing = directory
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.count();
    fs::create_dir_all(directory)?;
    Ok(missing)
}

/// A file's name is in its directory, which has an fsync of its own, and so is the directory's in the one above. At each open
/// and not only when something was made: a crash may have come between making it and this.
pub(super) fn sync(directory: &Path, made: usize) -> io::Result<()> {
    let directory = fs::canonicalize(directory)?;
    // The directory, those above it that were made, and the one that holds the first of them.
    for (above, directory) in directory.ancestors().take(made.max(1) + 1).enumerate() {
        match fs::File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // One that we may not read was there before us.
            Err(error) if above > 0 && error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
