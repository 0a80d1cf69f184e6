//! Where objects keep what is read of dictionaries, instances, modules and integers.
//!
//! Computed with `offsetof` from each version's own headers on x86-64: `PyTypeObject` and
//! `PyHeapTypeObject` in `cpython/object.h`; `PyDictObject` in `cpython/dictobject.h`;
//! `struct _dictkeysobject` in `Objects/dict-common.h` (3.8 to 3.10, not installed) and
//! `internal/pycore_dict.h` (3.11 on); `PyModuleObject` in `Objects/moduleobject.c` (3.8, 3.9) and
//! `internal/pycore_moduleobject.h` (3.10 on); `struct _longobject` in `longintrepr.h` (3.8 to 3.10)
//! and `cpython/longintrepr.h` (3.11 on); the places of managed dictionaries in
//! `internal/pycore_object.h` (3.11 on). Tags: v3.8.18, v3.9.18, v3.10.13, v3.11.7, v3.12.1. None
//! of these fields moves in a debug build.

/// The shape of a dictionary's table of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The table's size is a number, and every entry has its hash: 3.8 to 3.10.
    Sized,
    /// Sizes are powers of two, and entries of tables with only `str` keys have no hash: 3.11 on.
    Logarithmic,
}

/// Where instances keep their attributes if their type has `Py_TPFLAGS_MANAGED_DICT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedDict {
    /// A pointer to the values, or, where that is null, one to the dictionary: 3.11.
    Separate {
        /// The first pointer's distance before the object.
        values_before: usize,
        /// The second one's.
        dict_before: usize,
    },
    /// One pointer, odd if it is to the values: 3.12.
    Tagged {
        /// Its distance before the object.
        before: usize,
    },
    /// A pointer to the dictionary, or, where that is null, values right behind the object: 3.13 on.
    Inline {
        /// The pointer's distance before the object.
        dict_before: usize,
    },
}

/// Offsets in bytes, named `structure_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ObjectLayout {
    pub type_flags: usize,
    pub type_basic_size: usize,
    pub type_dict_offset: usize,
    pub type_cached_keys: usize,
    pub dict_keys: usize,
    pub dict_values: usize,
    pub keys: Keys,
    /// Of the first value, in what `dict_values` points to.
    pub values_items: usize,
    /// Absent before 3.11.
    pub managed_dict: Option<ManagedDict>,
    pub module_dict: usize,
    /// The number of digits.
    pub int_size: usize,
    pub int_digits: usize,
    /// Bits below the number of digits; the lowest two of them are the sign. None before 3.12, where
    /// a negative number of digits is the sign.
    pub int_size_shift: u32,
}

/// 3.8.
pub const V3_8: ObjectLayout = ObjectLayout {
    type_flags: 168,
    type_basic_size: 32,
    type_dict_offset: 288,
    type_cached_keys: 872,
    dict_keys: 32,
    dict_values: 40,
    keys: Keys::Sized,
    values_items: 0,
    managed_dict: None,
    module_dict: 16,
    int_size: 16,
    int_digits: 24,
    int_size_shift: 0,
};

/// 3.9.
pub const V3_9: ObjectLayout = ObjectLayout { type_cached_keys: 864, ..V3_8 };

/// 3.10.
pub const V3_10: ObjectLayout = V3_8;

/// 3.11.
pub const V3_11: ObjectLayout = ObjectLayout {
    keys: Keys::Logarithmic,
    managed_dict: Some(ManagedDict::Separate { values_before: 32, dict_before: 24 }),
    ..V3_10
};

/// 3.12.
pub const V3_12: ObjectLayout = ObjectLayout {
    type_cached_keys: 880,
    managed_dict: Some(ManagedDict::Tagged { before: 24 }),
    int_size_shift: 3,
    ..V3_11
};
