//! Which of the kernel's newer features may be used: all that it has, or none of them, to try the ways around on any machine.

/// Each feature is looked for where it is used; what is false here is not even looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The exit status of a process that is not our child, by PIDFD_GET_INFO (Linux 6.15).
    pub pidfd_info: bool,
    /// cgroup.kill (Linux 5.14).
    pub cgroup_kill: bool,
    /// CLONE_INTO_CGROUP (Linux 5.7).
    pub clone_into_cgroup: bool,
    /// Cgroups at all, and the right to make some.
    pub cgroups: bool,
}

impl Kernel {
    pub const fn as_it_is() -> Self {
        Self { pidfd_info: true, cgroup_kill: true, clone_into_cgroup: true, cgroups: true }
    }

    /// As Linux 5.4 would be.
    pub const fn old() -> Self {
        Self { pidfd_info: false, cgroup_kill: false, clone_into_cgroup: false, cgroups: true }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::as_it_is()
    }
}
