{
  description = "Typed I/O operations in batches, on io_uring or on an emulation that gives the same results";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      # The package is for where the tests run; the shell also for where the library is only type-checked.
      linux = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      darwin = [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      each = systems: f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      manifest = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).package;
    in
    {
      packages = each linux (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = manifest.name;
          version = manifest.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;

          # A library has nothing to install, so the package contains the examples that are of use by themselves. The others
          # read files of the repository.
          cargoBuildFlags = [ "--examples" ];
          postInstall = ''
            for example in copy deny; do
              found=$(find target -type f -path "*/release/examples/$example" -print -quit)
              install -D "$found" "$out/bin/aio-$example"
            done
          '';

          # The builder's sandbox forbids some of what the tests do; run them in `nix develop`.
          doCheck = false;

          meta = {
            inherit (manifest) description;
            license = with nixpkgs.lib.licenses; [
              mit
              asl20
            ];
            platforms = linux;
          };
        };
      });

      devShells = each (linux ++ darwin) (pkgs: {
        default = pkgs.mkShell {
          packages =
            (with pkgs; [
              cargo
              clippy
              rustc
              rustfmt
            ])
            ++ nixpkgs.lib.optionals pkgs.stdenv.isLinux (
              with pkgs;
              [
                strace
                valgrind
              ]
            );
        };
      });
    };
}
