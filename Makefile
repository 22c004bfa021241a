# The commands of this project; `make` alone lists them. A broker given by KF_AMQP__URL is used instead of a private one.

.DEFAULT_GOAL := help
.PHONY: help demo test chaos soak fleet bad-day isolation scaling bench guard steps fuzz image-test versions validate reference mutants lint

help:
	@echo 'make demo          real commands through RabbitMQ, the worker and a simulated WeChat, each result shown'
	@echo 'make demo KEEP=1   the same, and everything stays up until Ctrl-C'
	@echo 'make test          every test'
	@echo 'make chaos         a random run of some minutes with kills and faults: make chaos SEED=7 SECONDS=300'
	@echo '                   many of them, one after the other: SEEDS=20 new seeds, or SEEDS=1-20, SEEDS=1,5,7'
	@echo 'make soak          an hour of mixed traffic with faults, and whether the worker has grown meanwhile: make soak SEED=7 MINUTES=60'
	@echo 'make fleet         20,000 commands over several workers while one is killed, one stopped, one joins, and PostgreSQL dies'
	@echo 'make bad-day       5,000 commands while one Official Account is locked out and another has no quota left'
	@echo 'make isolation     a benchmark: what a healthy Official Account feels of one whose every call hangs'
	@echo 'make scaling       a benchmark: commands a second of one, two and three workers, of a queue and of either ledger'
	@echo 'make bench         a benchmark: the worker against the smallest honest loop, with what has to be reached: make bench ROWS=instant,idle'
	@echo 'make guard         the part of it that tells in two minutes whether the worker has become slower, as a ratio to that loop'
	@echo 'make steps         a benchmark of the steps of a command by themselves'
	@echo 'make fuzz          inputs that nobody thought of, held to what is promised of every input: make fuzz SECONDS=600 TARGET=decode'
	@echo 'make image-test    builds the image without a Docker daemon, and runs it as locked down as an operator would'
	@echo 'make versions      the tests against RabbitMQ and PostgreSQL of other Debian releases: make versions ONLY=trixie FILTER=order'
	@echo 'make validate      holds the files for Compose, Kubernetes, systemd and Docker, and the AsyncAPI document, to their own validators'
	@echo 'make reference     docs/metrics.md, docs/schemas/ and docs/asyncapi.json written anew from the code'
	@echo 'make mutants       breaks the code in one small place at a time, and tells what no test noticed: make mutants FILES=src/retry.rs TESTS=retry::'
	@echo 'make lint          formatting, clippy, documentation, licences and bans of the dependencies'
	@echo
	@echo 'All but reference, lint, fuzz, image-test and validate install RabbitMQ with apt where it is missing; test, fleet, scaling, bench and mutants'
	@echo 'PostgreSQL and PgBouncer too, test also Prometheus, Chromium, OpenSSL, libfaketime, Python and Node.js.'
	@echo 'With KF_AMQP__URL demo and test use that broker, with KF_TEST_POSTGRES_URL test uses that database server;'
	@echo 'the others, and tests that kill servers, start their own.'

demo:
	@deploy/prerequisites.sh
	@cargo build --locked --release --bins --example demo
	@KEEP=$(KEEP) cargo run --locked --release --quiet --example demo

# Built first and by itself, since `cargo test --quiet` would say nothing while it compiles.
test:
	@deploy/prerequisites.sh tests
	@cargo build --locked --bins --tests --examples
	@cargo test --locked --quiet

# Always with a broker of its own, since it kills it.
chaos:
	@KF_AMQP__URL= deploy/prerequisites.sh
	@cargo build --locked --bins --test chaos
	@cargo test --locked --quiet --test chaos -- $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SECONDS),--seconds $(SECONDS))

# With optimisation, since it measures. PICTURE=docs/soak.svg puts the picture where the docs show it.
soak:
	@KF_AMQP__URL= deploy/prerequisites.sh
	@cargo build --locked --release --bins --test soak
	@cargo test --locked --release --quiet --test soak -- $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(PICTURE),--picture $(PICTURE))

# With servers of its own, since it kills one of them.
fleet:
	@deploy/prerequisites.sh servers
	@cargo build --locked --bins --test fleet
	@cargo test --locked --quiet --test fleet -- $(if $(SEED),--seed $(SEED)) $(if $(COMMANDS),--commands $(COMMANDS))

bad-day:
	@KF_AMQP__URL= deploy/prerequisites.sh
	@cargo build --locked --bins --test bad-day
	@cargo test --locked --quiet --test bad-day

# With optimisation, since it measures.
isolation:
	@KF_AMQP__URL= deploy/prerequisites.sh
	@cargo build --locked --release --bins --test isolation
	@cargo test --locked --release --quiet --test isolation

# With optimisation, since it measures, and with servers of its own.
scaling:
	@deploy/prerequisites.sh servers
	@cargo build --locked --release --bins --test scaling
	@cargo test --locked --release --quiet --test scaling -- $(if $(ONLY),--only $(ONLY))

# With optimisation, since it measures, and with servers of its own.
bench:
	@deploy/prerequisites.sh servers
	@cargo build --locked --release --bins --example floor --bench bench
	@cargo bench --locked --quiet --bench bench -- $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS)) $(if $(COMMANDS),--commands $(COMMANDS)) \
		$(if $(BACKLOG),--backlog $(BACKLOG)) $(if $(OUTCOMES),--outcomes $(OUTCOMES))

# Where it fails, `make steps` may tell why.
guard:
	@KF_AMQP__URL= deploy/prerequisites.sh
	@cargo build --locked --release --bins --example floor --bench bench
	@cargo bench --locked --quiet --bench bench -- --rows instant,slow,idle --guard

steps:
	@cargo bench --locked --quiet --bench steps

# By libFuzzer, which is compiled with them.
fuzz:
	@deploy/prerequisites.sh fuzzing
	@fuzz/run $(or $(SECONDS),60) $(TARGET)

# As root, on Debian: it installs buildah and podman.
image-test:
	@deploy/image-test.sh

# As root, on Debian, with debootstrap.
versions:
	@ONLY='$(ONLY)' FILTER='$(FILTER)' deploy/versions.sh

validate:
	@deploy/prerequisites.sh validation
	@deploy/validate.sh

reference:
	@KF_WRITE_REFERENCE=1 cargo test --locked --quiet --lib the_reference_of

# In a copy of the folder; a quarter of a minute for each change, hours for all. What no test noticed is in target/mutants.out/missed.txt.
mutants: FILES ?= src/command.rs src/command/** src/outcome.rs src/retry.rs src/lanes.rs src/ledger/order.rs src/ledger/sheet/**
mutants:
	@deploy/prerequisites.sh servers
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants --version 27.1.0
	@cargo mutants -o target $(foreach file,$(FILES),-f '$(file)') $(if $(SHARD),--shard $(SHARD)) -- -- $(TESTS)

lint:
	@.ci/run lint
