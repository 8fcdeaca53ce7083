//! The seccomp filter of a container: compiled once for each profile, then read from a file.
//!
//! To compile Docker's default profile takes longer than everything else that is done for a start. So the program that
//! came of it is kept beside the containers' directories:
//!
//! ```text
//! <root>/.seccomp-<digest>   64 hexadecimal digits: SHA-256 of what follows; then the program
//! ```
//!
//! The digest of the name covers all that the program depends on: the profile, the architecture, the kernel, and the
//! version of libseccomp. A directory or file that somebody else than root could write to is not used.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion};
use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, Error, Result};
use crate::state::write_file;
use crate::sys;

/// `BPF_MAXINSNS` instructions of eight bytes.
const MAX_PROGRAM_BYTES: usize = 4096 * 8;
const DIGEST_BYTES: usize = 64;

/// A filter, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<u8>,
    flags: u64,
}

impl Filter {
    /// That of a profile; `root` is where programs are kept.
    pub fn of(profile: Option<&LinuxSeccomp>, root: &Path) -> Result<Option<Self>> {
        let Some(profile) = profile else { return Ok(None) };
        let flags = profile.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag));
        let path = root.join(format!(".seccomp-{}", key(profile)?));
        if let Some(program) = read(root, &path) {
            return Ok(Some(Filter { program, flags }));
        }
        let program = compile(profile)?;
        let mut text = archive::sha256_hex(&program).into_bytes();
        text.extend(&program);
        if is_safe(root)
            && let Err(err) = write_file(&path, &text)
        {
            // Only time is lost.
            tracing::warn!("{err}");
        }
        Ok(Some(Filter { program, flags }))
    }

    /// Puts the calling process under it.
    pub fn load(&self) -> Result<()> {
        sys::load_seccomp(&self.program, self.flags).doing(|| "load the seccomp filter".into())
    }
}

fn key(profile: &LinuxSeccomp) -> Result<String> {
    let text = serde_json::to_string(profile).doing(|| "encode the seccomp profile".into())?;
    let library = ScmpVersion::current().map_err(failed)?;
    let kernel = rustix::system::uname();
    let all = format!(
        "3\n{}\n{}\n{}.{}.{}\n{text}",
        std::env::consts::ARCH,
        kernel.release().to_string_lossy(),
        library.major,
        library.minor,
        library.micro
    );
    Ok(archive::sha256_hex(all.as_bytes()))
}

fn is_safe(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|found| found.uid() == own && found.mode() & 0o022 == 0)
}

fn read(root: &Path, path: &Path) -> Option<Vec<u8>> {
    if !is_safe(root) || !is_safe(path) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.take((DIGEST_BYTES + MAX_PROGRAM_BYTES + 1) as u64).read_to_end(&mut text).ok()?;
    let (digest, program) = text.split_at_checked(DIGEST_BYTES)?;
    let whole = !program.is_empty()
        && program.len() <= MAX_PROGRAM_BYTES
        && program.len() % 8 == 0
        && archive::sha256_hex(program).as_bytes() == digest;
    whole.then(|| program.to_vec())
}

fn failed(err: impl std::fmt::Display) -> Error {
    Error::Init(format!("error loading seccomp filter: {err}"))
}

fn flag_bit(flag: LinuxSeccompFilterFlag) -> u64 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
        // It means something only with notifications, which are refused.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    }
}

fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(failed)?;
    for arch in profile.architectures().iter().flatten() {
        context.add_arch(architecture(*arch)).map_err(failed)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let wanted = action(rule.action(), rule.errno_ret())?;
        // Where it says what holds anyway there is nothing to add.
        if wanted != default {
            add(&mut context, rule, wanted)?;
        }
    }
    let mut program = match default {
        ScmpAction::Errno(errno) if errno != libc::ENOSYS => unknown_calls(profile),
        _ => Vec::new(),
    };
    let doing = || "export the seccomp filter".to_owned();
    let memory = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).doing(doing)?;
    context.export_bpf(&memory).map_err(failed)?;
    let mut file = fs::File::from(memory);
    file.rewind().doing(doing)?;
    let length = file.take(MAX_PROGRAM_BYTES as u64 + 1).read_to_end(&mut program).doing(doing)?;
    if length == 0 || program.len() > MAX_PROGRAM_BYTES || program.len() % 8 != 0 {
        return Err(failed(format!("the profile is too large ({} bytes)", program.len())));
    }
    Ok(program)
}

/// What comes before the program: a call with a higher number than any in the profile is newer than the profile, and does not
/// exist (`ENOSYS`). Programs try such calls and fall back to older ones; "not permitted" would be the end of it.
fn unknown_calls(profile: &LinuxSeccomp) -> Vec<u8> {
    // From the kernel's `linux/bpf_common.h`, `linux/seccomp.h` and `linux/audit.h`.
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const IF_GREATER: u16 = 0x25;
    const IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const NUMBER_OFFSET: u32 = 0;
    const ARCH_OFFSET: u32 = 4;
    const ERRNO: u32 = 0x0005_0000;
    const X32_BIT: u32 = 0x4000_0000;
    const KNOWN: [(ScmpArch, u32); 4] = [
        (ScmpArch::X8664, 0xc000_003e),
        (ScmpArch::X86, 0x4000_0003),
        (ScmpArch::Aarch64, 0xc000_00b7),
        (ScmpArch::Arm, 0x4000_0028),
    ];
    let wanted = |arch: ScmpArch| {
        ScmpArch::native() == arch || profile.architectures().iter().flatten().any(|own| architecture(*own) == arch)
    };
    let names = || profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let mut program = Vec::new();
    let mut push = |code: u16, yes: u8, no: u8, k: u32| {
        program.extend(code.to_ne_bytes());
        program.extend([yes, no]);
        program.extend(k.to_ne_bytes());
    };
    for (arch, audit) in KNOWN.into_iter().filter(|(arch, _)| wanted(*arch)) {
        let number = |name: &String| u32::try_from(i32::from(ScmpSyscall::from_name_by_arch(name, arch).ok()?)).ok();
        let Some(last) = names().filter_map(number).max() else { continue };
        push(LOAD, 0, 0, ARCH_OFFSET);
        push(IF_EQUAL, 0, 4, audit);
        push(LOAD, 0, 0, NUMBER_OFFSET);
        // Those of x32 have numbers of their own, and no others come so high.
        push(IF_AT_LEAST, 2, 0, X32_BIT);
        push(IF_GREATER, 0, 1, last);
        push(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32);
    }
    program
}

fn add(context: &mut ScmpFilterContext, rule: &LinuxSyscall, wanted: ScmpAction) -> Result<()> {
    let conditions: Vec<ScmpArgCompare> = rule
        .args()
        .iter()
        .flatten()
        .map(|arg| match arg.op() {
            // The first value is the mask, the second what must be left of the argument.
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let masked = ScmpCompareOp::MaskedEqual(arg.value());
                ScmpArgCompare::new(arg.index() as u32, masked, arg.value_two().unwrap_or(0))
            }
            op => ScmpArgCompare::new(arg.index() as u32, operator(op), arg.value()),
        })
        .collect();
    let mut seen = HashSet::new();
    let once = rule.args().iter().flatten().all(|arg| seen.insert(arg.index()));
    for name in rule.names() {
        // What this library has not heard of, no program can call by this name here.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            tracing::debug!("seccomp: unknown system call {name}");
            continue;
        };
        if once {
            context.add_rule_conditional(wanted, call, &conditions).map_err(failed)?;
            continue;
        }
        // Several conditions for one argument are as many rules, as runc has it.
        for condition in &conditions {
            context.add_rule_conditional(wanted, call, std::slice::from_ref(condition)).map_err(failed)?;
        }
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let errno = errno.map_or(libc::EPERM, |errno| i32::try_from(errno).unwrap_or(libc::EPERM));
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(errno).map_err(failed)?),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => return Err(Error::NotImplemented("seccomp SCMP_ACT_NOTIFY".into())),
    })
}

fn operator(operator: LinuxSeccompOperator) -> ScmpCompareOp {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        // The masked one does not come here.
        LinuxSeccompOperator::ScmpCmpEq | LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
    }
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn profile(call: &str) -> LinuxSeccomp {
        serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": [call, "no_such_call"], "action": "SCMP_ACT_ERRNO",
                "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}
                ]
            }]
        }))
        .unwrap()
    }

    /// What a filter says to a call; `None` when the end is reached, where the rest of it comes.
    #[cfg(target_arch = "x86_64")]
    fn answer(program: &[u8], arch: u32, number: u32) -> Option<u32> {
        let (mut at, mut register) = (0, 0);
        loop {
            let instruction = program.chunks(8).nth(at)?;
            let code = u16::from_ne_bytes(instruction[..2].try_into().unwrap());
            let k = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
            let jump = |condition: bool| usize::from(instruction[if condition { 2 } else { 3 }]);
            at += 1;
            match code {
                0x20 => register = if k == 4 { arch } else { number },
                0x15 => at += jump(register == k),
                0x25 => at += jump(register > k),
                0x35 => at += jump(register >= k),
                0x06 => return Some(k),
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_call_that_is_newer_than_the_profile_does_not_exist() {
        let profile: LinuxSeccomp = serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{ "names": ["read", "openat", "no_such_call"], "action": "SCMP_ACT_ALLOW" }]
        }))
        .unwrap();
        let stub = unknown_calls(&profile);
        let (x86_64, x86) = (0xc000_003e, 0x4000_0003);
        // openat is 257 and 295.
        for (arch, number, wanted) in [
            (x86_64, 257, None),
            (x86_64, 258, Some(0x0005_0026)),
            (x86_64, 452, Some(0x0005_0026)),
            (x86_64, 0x4000_0000 + 520, None),
            (x86, 295, None),
            (x86, 296, Some(0x0005_0026)),
            (0xc000_00b7, 4000, None),
        ] {
            assert_eq!(answer(&stub, arch, number), wanted, "{arch:#x} {number}");
        }
        let whole = compile(&profile).unwrap();
        assert!(whole.starts_with(&stub) && whole.len() > stub.len());
        assert_eq!(unknown_calls(&profile_of_nothing()), Vec::<u8>::new());
    }

    #[cfg(target_arch = "x86_64")]
    fn profile_of_nothing() -> LinuxSeccomp {
        serde_json::from_value(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO" })).unwrap()
    }

    #[test]
    fn a_program_is_kept_and_a_damaged_one_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        let first = Filter::of(Some(&profile("acct")), dir.path()).unwrap().unwrap();
        let kept = files();
        assert_eq!(kept.len(), 1);
        assert_eq!(read(dir.path(), &kept[0]).as_ref(), Some(&first.program));
        for damage in [0, 70] {
            let mut text = fs::read(&kept[0]).unwrap();
            text[damage] ^= 1;
            fs::write(&kept[0], text).unwrap();
            assert_eq!(read(dir.path(), &kept[0]), None);
            assert_eq!(Filter::of(Some(&profile("acct")), dir.path()).unwrap().unwrap(), first);
        }
        assert_ne!(Filter::of(Some(&profile("mount")), dir.path()).unwrap().unwrap(), first);
        assert_eq!(files().len(), 2);
        // Where others may write, nothing is believed and nothing kept.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(read(dir.path(), &kept[0]), None);
        Filter::of(Some(&profile("reboot")), dir.path()).unwrap();
        assert_eq!(files().len(), 2);
    }
}
