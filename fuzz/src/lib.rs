//! Fuzz targets: one for every parser of what somebody else wrote. A target is a plain function of bytes that must not
//! panic, hang, or take memory beyond its measure, whatever the bytes are.
//!
//! The same functions are run in two ways: by libFuzzer with coverage, minutes each (`make fuzz`), and by the ordinary
//! tests, which replay all of `corpus/` and `regressions/` and then try mutations for a moment (`seconds.rs`).
#![forbid(unsafe_code)]

mod files;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod seconds;

/// One parser under test.
pub struct Target {
    /// Its name, that of its folders in `corpus/` and `regressions/` too.
    pub name: &'static str,
    /// What it does with any bytes.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident => $run:path;)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $run }),*];

        #[cfg(test)]
        mod each {
            $(#[test]
            fn $name() {
                crate::seconds::run(&crate::Target { name: stringify!($name), run: $run });
            })*
        }
    };
}

targets! {
    api_bodies => api::fuzz::bodies;
    api_create_body => api::fuzz::create_body;
    api_filters => api::fuzz::filters;
    api_registry_auth => api::fuzz::registry_auth;
    api_target => api::fuzz::target;
    archive_read => archive::fuzz_read;
    archive_unpack => crate::files::archive_unpack;
    checkpoint_manifest => checkpoint::fuzz::manifest;
    checkpoint_options => crate::files::checkpoint_options;
    containerd_authority => containerd::fuzz::authority;
    containerd_bundle => crate::files::containerd_bundle;
    containerd_journal => crate::files::containerd_journal;
    containerd_names => containerd::fuzz::names;
    containerd_request => containerd::fuzz::request;
    containerd_runtime => containerd::fuzz::runtime;
    containerd_state_files => containerd::fuzz::state_files;
    criu_log => crate::files::criu_log;
    criu_pagemap => crate::files::criu_pagemap;
    criu_response => crate::files::criu_response;
    criu_stats => crate::files::criu_stats;
    daemon_create => daemon::containers::fuzz::create;
    daemon_processes => daemon::containers::fuzz::processes;
    daemon_record => daemon::containers::fuzz::record;
    daemon_seccomp => daemon::containers::fuzz::seccomp_profile;
    daemon_users => crate::files::daemon_users;
    dockerd_config => crate::files::dockerd_config;
    images_archive => crate::files::images_archive;
    images_changes => images::fuzz::changes;
    images_config => images::fuzz::config;
    images_manifest => images::fuzz::manifest;
    images_reference => images::fuzz::reference;
    listeners_address => crate::files::listeners_address;
    logs_json_lines => logs::fuzz::json_lines;
    logs_options => crate::files::logs_options;
    network_addresses => network::fuzz::addresses;
    network_files => network::fuzz::files;
    network_query => network::fuzz::query;
    network_records => network::fuzz::records;
    registry_challenge => images::registry::fuzz::challenge;
    registry_failure => images::registry::fuzz::failure;
    registry_link => images::registry::fuzz::link;
    runc_config => crate::files::runc_config;
    runc_process => crate::files::runc_process;
    runc_resources => runc::fuzz::resources;
    runc_state => crate::files::runc_state;
    runc_words => runc::fuzz::words;
    shim_message => shim::fuzz::message;
    shim_request => shim::fuzz::request;
    shim_runtime => shim::fuzz::runtime;
}
