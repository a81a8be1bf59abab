//! What turns a crate into a component.

/// Exports a [`crate::Step`]. Once, at the root of the plugin's crate.
#[macro_export]
macro_rules! export_step {
    ($step:ty) => {
        $crate::__manifest!();

        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::__private::{bindings::step as world, export};

            struct Component;

            impl world::exports::psn::plugin::lifecycle::Guest for Component {
                fn inspect() -> Result<world::exports::psn::plugin::lifecycle::State, world::psn::plugin::types::Failure> {
                    export::inspect::<$step>()
                }

                fn apply() -> Result<world::psn::plugin::types::Report, world::psn::plugin::types::Failure> {
                    export::apply::<$step>()
                }

                fn verify() -> Result<world::psn::plugin::types::Report, world::psn::plugin::types::Failure> {
                    export::verify::<$step>()
                }

                fn destroy() -> Result<world::psn::plugin::types::Report, world::psn::plugin::types::Failure> {
                    export::destroy::<$step>()
                }
            }

            $crate::__private::bindings::step::export_world!(Component with_types_in $crate::__private::bindings::step);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_a_step<T: $crate::Step>() {}
            is_a_step::<$step>();
        };
    };
}

/// Exports a [`crate::Task`]. Once, at the root of the plugin's crate.
#[macro_export]
macro_rules! export_task {
    ($task:ty) => {
        $crate::__manifest!();

        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::__private::{bindings::task as world, export};

            struct Component;

            impl world::exports::psn::plugin::runner::Guest for Component {
                fn run(
                    invocation: world::exports::psn::plugin::runner::Invocation,
                ) -> Result<String, world::exports::psn::plugin::runner::Failure> {
                    export::run::<$task>(invocation)
                }
            }

    $crate::__private::bindings::task::export_world!(Component with_types_in $crate::__private::bindings::task);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_a_task<T: $crate::Task>() {}
            is_a_task::<$task>();
        };
    };
}

/// `plugin.toml` travels inside the component, so that a plugin is one file.
#[doc(hidden)]
#[macro_export]
macro_rules! __manifest {
    () => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            const TEXT: &[u8] =
                ::core::include_bytes!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/plugin.toml"));

            #[used]
            #[unsafe(link_section = "psn:manifest")]
            static MANIFEST: [u8; TEXT.len()] =
                *::core::include_bytes!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/plugin.toml"));
        };

        /// The plugin's manifest, for `psn_plugin::testing::Hub::new`.
        #[cfg(not(target_family = "wasm"))]
        #[doc(hidden)]
        pub const MANIFEST: &str =
            ::core::include_str!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/plugin.toml"));
    };
}
