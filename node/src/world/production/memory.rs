//! How much memory this process has, and how much it may have, as Linux says in `/proc` and in its cgroups.

use std::fs::read_to_string;
use std::path::Path;

use crate::world::Memory;

/// Where cgroups are mounted: version 2, and the memory controller of version 1.
const CGROUPS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// The kernel's accounts.
pub struct KernelMemory;

impl Memory for KernelMemory {
    fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&read_to_string("/proc/self/status").ok()?)
    }

    fn available_bytes(&self) -> Option<u64> {
        let machine = read_to_string("/proc/meminfo").ok();
        let machine = machine.and_then(|text| kibibytes(&text, "MemTotal:"));
        let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = cgroup_limit(&groups, |path| read_to_string(path).ok());
        machine.into_iter().chain(group).min()
    }
}

/// `RssAnon:     152 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let number = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = number.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Of `/proc/self/status`: without the pages of files, which the kernel drops when it needs room. Kernels that don't tell
/// them apart say the whole.
fn resident_bytes(status: &str) -> Option<u64> {
    let own = kibibytes(status, "RssAnon:").map(|anonymous| {
        let shared = kibibytes(status, "RssShmem:").unwrap_or(0);
        anonymous + shared
    });
    own.or_else(|| kibibytes(status, "VmRSS:"))
}

/// The least limit of the process's cgroup and of those around it. A container often sees its own as the root, though
/// `/proc/self/cgroup` has the path outside: folders that are not there are passed over.
fn cgroup_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        // `0::/path` of version 2, `4:memory:/path` of version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => CGROUPS[0],
            several if several.split(',').any(|one| one == "memory") => CGROUPS[1],
            _ => continue,
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = read(&Path::new(mount).join(folder).join(file));
            // `max`: none.
            let limit = limit.and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_are_not_counted() {
        let status = "Name:\tvolt-node\nVmRSS:\t    2272 kB\nRssAnon:\t     152 kB\nRssFile:\t    2120 kB\nRssShmem:\t       8 kB\n";
        assert_eq!(resident_bytes(status), Some(160 << 10));
        assert_eq!(resident_bytes("VmRSS:\t    2272 kB\n"), Some(2272 << 10));
        assert_eq!(resident_bytes("VmRSS: many\n"), None);
    }

    #[test]
    fn the_least_limit_around_the_process_counts() {
        let read = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/pods/one/memory.max" => "max\n",
                "/sys/fs/cgroup/pods/memory.max" => "2000\n",
                "/sys/fs/cgroup/memory.max" => "3000\n",
                // As a container of version 1 sees its own.
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "1000\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(cgroup_limit("0::/pods/one\n", read), Some(2000));
        assert_eq!(cgroup_limit("0::/\n", read), Some(3000));
        assert_eq!(
            cgroup_limit("3:cpu,cpuacct:/x\n4:memory:/host/path\n", read),
            Some(1000)
        );
        assert_eq!(cgroup_limit("3:cpu:/x\nnonsense\n", read), None);
    }

    #[test]
    fn this_process_takes_memory_and_has_some_left() {
        let (used, available) = (KernelMemory.resident_bytes(), KernelMemory.available_bytes());
        assert!(used > Some(0) && used < available, "{used:?} of {available:?}");
    }
}
