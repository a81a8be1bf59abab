//! What people and logs see while a plugin works. Standard output is not there: the host has its own protocol on it.

use crate::sys;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Log lines with a format string and fields: `log::warn!("no such task"; task = name);`. Never put a secret in one.
pub mod log {
    pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};
}

/// How far the work is; `total` 0 when that is not known.
pub fn progress(done: u32, total: u32, message: impl AsRef<str>) {
    sys::progress(done, total, message.as_ref());
}

#[doc(hidden)]
pub fn write(level: Level, message: &str, fields: &[(&str, String)]) {
    sys::log(level, message, fields);
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $format:literal $(, $arg:expr)* $(; $($key:ident = $value:expr),+ )? $(,)?) => {
        $crate::__private::write(
            $crate::Level::$level,
            &::std::format!($format $(, $arg)*),
            &[$($((::std::stringify!($key), ::std::string::ToString::to_string(&$value))),+)?],
        )
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __debug { ($($t:tt)*) => { $crate::__log!(Debug, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __info { ($($t:tt)*) => { $crate::__log!(Info, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __warn { ($($t:tt)*) => { $crate::__log!(Warn, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __error { ($($t:tt)*) => { $crate::__log!(Error, $($t)*) }; }
