//! Interface counters, from `/proc/<pid>/net/dev`: that file shows the namespace of the process, so that nobody has to
//! enter it.

use crate::{Error, InterfaceStats, Result};

/// The counters of all interfaces but loopback.
pub(crate) fn of_process(pid: u32) -> Result<Vec<InterfaceStats>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = std::fs::read_to_string(&path).map_err(Error::io(path))?;
    Ok(text.lines().skip(2).filter_map(line).filter(|stats| stats.name != "lo").collect())
}

/// `man 5 proc_pid_net`: eight receive columns, then eight transmit columns.
fn line(line: &str) -> Option<InterfaceStats> {
    let (name, rest) = line.split_once(':')?;
    let columns: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    let at = |column: usize| columns.get(column).copied();
    Some(InterfaceStats {
        name: name.trim().to_owned(),
        rx_bytes: at(0)?,
        rx_packets: at(1)?,
        rx_errors: at(2)?,
        rx_dropped: at(3)?,
        tx_bytes: at(8)?,
        tx_packets: at(9)?,
        tx_errors: at(10)?,
        tx_dropped: at(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_net_dev() {
        let stats = line("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").unwrap();
        assert_eq!((stats.rx_bytes, stats.rx_dropped, stats.tx_bytes, stats.tx_dropped), (1, 4, 9, 12));
        assert_eq!(stats.name, "eth0");
        assert!(line("eth0: 1 2").is_none());
        assert!(of_process(std::process::id()).unwrap().iter().all(|stats| stats.name != "lo"));
    }
}
