//! The macros that this crate is written in: `consts`, `guest_struct` and `flag_set`.

/// A group of plain constants of one type, documented by one line that names the source.
macro_rules! consts {
    ($doc:literal, $t:ty; $($name:ident = $value:expr),+ $(,)?) => {
        $(#[doc = $doc] pub const $name: $t = $value;)+
    };
}

/// A struct that is copied to or from guest memory: every byte is a field, so nothing leaks and any bytes decode.
///
/// `Name: SIZE { field: type, .. }` gives a `#[repr(C)]` struct with public fields whose size is asserted; `Default`
/// is all zero.
macro_rules! guest_struct {
    ($(#[$m:meta])* $name:ident: $size:literal { $($(#[$fm:meta])* $field:ident: $t:ty),+ $(,)? }) => {
        $(#[$m])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        #[allow(missing_docs, reason = "fields are those of the C struct named above")]
        pub struct $name { $($(#[$fm])* pub $field: $t),+ }

        const _: () = assert!(size_of::<$name>() == $size);

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    };
}

/// A set of flags; `Name: u32 "PREFIX_" { A = 1, .. }`. Each flag's doc is its C name.
macro_rules! flag_set {
    ($(#[$m:meta])* $name:ident: $t:ty, $prefix:literal { $($flag:ident = $value:expr),+ $(,)? }) => {
        bitflags::bitflags! {
            $(#[$m])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $name: $t {
                $(#[doc = concat!("`", $prefix, stringify!($flag), "`.")] const $flag = $value;)+
            }
        }
    };
}
