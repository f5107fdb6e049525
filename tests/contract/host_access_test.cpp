// Traps of reads, host data, pointers and random numbers in the body.
#include <algorithm>
#include <cstring>
#include <sstream>

#include "tests/contract/trap.h"

using namespace programs;

TRAP("a tensor is printed in the body", "MLX: printing inside fails; tf.function, JAX: prints a tracer, once",
     reads_run) {
  std::ostringstream out;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * 2.f;
    out << y << '\n';
    return y + 1.f;
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(3, float(i))));
  run.see(out.str());
}

TRAP("a captured tensor that the body has changed is printed", "tinygrad: reads of assigned tensors",
     reads_run) {
  Tensor w = range(3);
  std::ostringstream out;
  auto f = run.wrap([&](Tensor x) {
    w.add_(x);
    out << w << '\n';
    w.mul_(2.f);
    return w.sum().item<float>() + w.select(0, 0).item<float>();
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(3)));
  run.see(out.str());
}

TRAP("a loop of reads of captured memory between writes", "MLX: eval inside a trace fails", owed_reads) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    std::vector<float> got;
    for (int i = 0; i < 3; ++i) {
      w.add_(x);
      got.push_back(w.to_vector<float>()[size_t(i)]);
    }
    return td::tensor(got);
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(3)));
}

TRAP("the address of a pending value is taken and written through",
     "JAX, torch.jit.trace: no address, or a stale one", reads_run) {
  auto f = run.wrap([](Tensor x) {
    const Tensor y = x * 2.f;
    float* p = y.data<float>();
    p[1] += 1000.f;
    return y + 1.f;
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(3, float(i))));
}

TRAP("a captured tensor is written through its address while an op that read it is pending",
     "torch.jit.trace: writes through pointers are lost", owed_pointers) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor before = w * x;
    w.data<float>()[0] += 100.f;
    return before + w;
  });
  for (int i = 0; i < 5; ++i) run.see(f(range(3)));
  run.see(w);
}

TRAP("a host routine in the middle of the body",
     "JAX: pure_callback; torch.jit.trace: numpy results are constants", compare_operands) {
  auto f = run.wrap([](Tensor x) {
    std::vector<float> v = (x * 2.f).to_vector<float>();
    std::sort(v.begin(), v.end(), std::greater<>());
    return td::tensor(v) + x;
  });
  for (int i = 0; i < 5; ++i) run.see(f(td::sin(range(5, float(i)))));
}

TRAP("memory of the program's is borrowed in the body, used again for something else, and freed",
     "CUDA graphs, tinygrad: the address of the first call is read", borrowed_memory) {
  Tensor w = range(3).requires_grad_();
  float calls = 0;
  auto f = run.wrap([&](Tensor x) {
    std::vector<float> buffer(3), out(3);
    Tensor sum = x * 0.f;
    for (int k = 0; k < 3; ++k) {
      std::fill(buffer.begin(), buffer.end(), float(k) + calls);
      sum = sum + td::from_blob(buffer.data(), {3}).slice(0, 0, 3).to(x.device());
    }
    td::from_blob(out.data(), {3}).copy_((sum * 2.f).to(td::cpu));
    run.see(out[1]);
    w.zero_grad();
    (w * td::from_blob(out.data(), {3}).to(x.device())).sum().backward();
    std::fill(out.begin(), out.end(), -1.f);
    return sum;
  });
  for (; calls < 5; ++calls) {
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("host data made in the body is another in every call", "tf.function: a numpy array is a constant",
     compare_operands) {
  std::vector<float> mask{1, 0, 0};
  auto f = run.wrap([&](Tensor x) { return x * td::tensor(mask) + td::scalar_tensor(mask[0]); });
  for (int i = 0; i < 7; ++i) {
    run.see(f(range(3, float(i))));
    std::rotate(mask.begin(), mask.begin() + 1, mask.end());
  }
}

TRAP("host data made in the body needs no new recording", "Dynamo: a recompile a constant", slot_rebinding) {
  auto f = run.wrap([n = 0.f](Tensor x) mutable {
    n += 1;
    return x * td::tensor({n, -n, n * n});
  });
  for (int i = 0; i < 6; ++i) run.see(f(range(3)));
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("an index table made by the host whose length changes", "JAX: shapes are static", slot_types) {
  std::vector<int64_t> rows{0, 2};
  const Tensor table = range(12).view({4, 3});
  auto f = run.wrap([&](Tensor x) { return (table.index_select(0, td::tensor(rows)) * x).sum({0}); });
  for (int i = 0; i < 8; ++i) {
    if (i % 3 == 1) rows.push_back(i % 4);
    if (i % 3 == 2) rows.erase(rows.begin());
    run.see(f(range(3)));
  }
}

TRAP("a label out of range, on a later call", "CUDA graphs: no check of values in replay", store_scalars) {
  Tensor w = leaf(3);
  double scale = 1;
  auto f = run.wrap([&](Tensor x, Tensor label) {
    const Tensor logits = (x * w).view({1, 3}) * scale;
    Tensor loss = td::cross_entropy(logits, label);
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 7; ++i) {
    scale = 1 + i;
    try {
      run.see(f(range(3) * 0.1f, td::tensor<int64_t>({i == 4 ? 5 : i % 3})));
    } catch (const td::Error& e) {
      // Eager mode names the label besides.
      const std::string text = e.what();
      run.see(text.substr(0, text.find(':')) + text.substr(text.find(" at ")));
    }
  }
}

TRAP("dropout masks differ from call to call", "pytorch #84967: one mask for ever", store_scalars) {
  auto f = run.wrap([](Tensor x) { return td::dropout(x, 0.5); });
  for (int i = 0; i < 6; ++i) run.see(f(td::ones({8})));
  run.see(int64_t(td::default_generator().offset()));
}

TRAP("the generator is seeded between calls", "pytorch #84967, mlx #3828: the seed is ignored",
     store_scalars) {
  auto f = run.wrap([](Tensor x) { return x * td::rand({4}); });
  for (int i = 0; i < 6; ++i) {
    if (i % 2) td::manual_seed(uint64_t(i));
    run.see(f(td::ones({4})));
  }
}

TRAP("the body seeds the generator", "tf.function, JAX: seeding happens once", store_scalars) {
  uint64_t seed = 3;
  auto f = run.wrap([&](Tensor x) {
    td::manual_seed(seed);
    return x * td::rand({4}) + td::randn({4});
  });
  for (int i = 0; i < 6; ++i) {
    seed = uint64_t(i / 2);
    run.see(f(td::ones({4})));
    run.see(td::rand({1}));
  }
}

TRAP("a generator of the user, replaced and wound back", "pytorch #176752: states of captured generators",
     store_scalars) {
  td::Generator a(1), b(2);
  td::Generator* g = &a;
  auto f = run.wrap([&](Tensor x) { return x + td::rand({3}, {}, g) + td::rand({3}); });
  for (int i = 0; i < 8; ++i) {
    g = i % 3 ? &a : &b;
    if (i == 4) a.set_offset(0);
    run.see(f(range(3)));
    run.see(int64_t(a.offset() * 100 + b.offset()));
  }
}

TRAP("random numbers that nothing uses still count", "dead code in JAX and XLA: another stream",
     store_scalars) {
  auto f = run.wrap([](Tensor x) {
    const Tensor unused = td::randn({7});
    td::rand({5});
    return x + td::rand({3});
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3)));
    run.see(td::rand({1}));
  }
}

TRAP("random numbers on some calls only", "CUDA graphs: a fixed block of counters a replay", differences) {
  bool noise = true;
  auto f = run.wrap([&](Tensor x) {
    if (noise) x = x + td::rand({3});
    return x * td::rand({3});
  });
  for (int i = 0; i < 8; ++i) {
    noise = i % 3 != 1;
    run.see(f(range(3)));
  }
}

TRAP("a dropout probability that grows from zero", "0 is another program: no op at all", differences) {
  double p = 0.5;
  auto f = run.wrap([&](Tensor x) { return td::dropout(x * 2.f, p) + 1.f; });
  for (const double q : {0.5, 0.25, 0., 0., 0.1, 0.9, 0., 0.5}) {
    p = q;
    run.see(f(td::ones({8})));
  }
}

TRAP("a shuffle in the body", "tf.function: the permutation of the first call", compare_operands) {
  auto f = run.wrap([](Tensor x) { return x.index_select(0, td::randperm(6)); });
  for (int i = 0; i < 6; ++i) run.see(f(range(6)));
}

TRAP("random in-place fills of captured tensors", "initialisation inside a trace", store_scalars) {
  Tensor w = td::empty({4}), u = td::empty({4});
  auto f = run.wrap([&](Tensor x) {
    w.normal_(0, 2);
    u.uniform_(-1, 1);
    u.mul_(x);
    return w + u;
  });
  for (int i = 0; i < 5; ++i) run.see(f(td::ones({4})));
  run.see(w);
  run.see(u);
}

TRAP("a value is read twice, and once after it was changed", "reads are remembered", owed_reads) {
  auto f = run.wrap([](Tensor x) {
    const Tensor y = x * 2.f;
    const float a = y.sum().item<float>();
    const std::vector<float> first = y.to_vector<float>();
    y.add_(a);
    const std::vector<float> second = y.to_vector<float>();
    return td::tensor({a, first[0], second[0], y.amax().item<float>()});
  });
  for (int i = 0; i < 5; ++i) run.see(f(range(3, float(i))));
}
