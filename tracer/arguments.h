// How the arguments of a traced call are taken apart into tensors: these belong to the key of what was
// recorded; everything else in an argument is a host value, which is followed because the body runs. Free
// functions and values of one call; any thread.
//
// Taken apart: Tensor; arrays, std::array, pair, tuple, optional, variant; unique_ptr, shared_ptr,
// reference_wrapper (what they point to); containers with allocators (vector, map, ...; unordered maps in the
// order of their keys), spans; aggregates of up to kMostFields fields without base classes; and any class
// that says how:
//
//   struct Batch {                                    // a member,
//     template <class Visit> void tensors_of(Visit&& visit) const { visit("images", images_); visit(labels_);
//     }
//   };
//   template <class Visit>                            // or a function beside the class
//   void tensors_of(const Batch& b, Visit&& visit) { visit("images", b.images()); }
//
// A class that the compiler cannot see into (private members, base classes, modules, optimizers) is a host
// value. That is correct: its tensors are slots, as if they were captured.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/eager/tensor.h"
#include "tandem/tracer/fields.h"

namespace tandem::tracer {

/// The tensor arguments of a call, held until it ends. Few need no allocation.
class Arguments {
 public:
  Arguments() {}
  ~Arguments() { std::destroy_n(few_, n_); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  void add(Tensor t) {
    if (n_ < kFew && many_.empty()) {
      new (&few_[n_++]) Tensor(std::move(t));
      return;
    }
    if (many_.empty()) many_.assign(few_, few_ + n_);
    many_.push_back(std::move(t));
  }
  std::span<Tensor> list() { return many_.empty() ? std::span(few_, n_) : std::span(many_); }

 private:
  static constexpr size_t kFew = 8;
  union {
    Tensor few_[kFew];  // the first n_ live
  };
  size_t n_ = 0;
  std::vector<Tensor> many_;
};

/// Gathers tensors.
struct Collector {
  static constexpr bool kNamed = false;
  Arguments& out;
  void tensor(const Tensor& t) { out.add(t); }
};

/// Finds the path of the tensor that comes `index`-th: "arg1.images[2]".
struct Namer {
  static constexpr bool kNamed = true;
  size_t index;
  std::string path = {}, found = {};
  void tensor(const Tensor&) {
    if (index-- == 0) found = path;
  }
};

/// Names the arguments of the running call; asked only when a message is written.
struct ArgumentNames {
  std::string (*of)(const void* arguments, size_t index) = nullptr;
  const void* arguments = nullptr;
  std::string operator()(size_t index) const { return of(arguments, index); }
};

[[noreturn]] void fail_circular();

namespace customization {
void tensors_of() = delete;  // so that only argument-dependent look-up finds any
template <class T, class V>
concept Function = requires(const T& t, V& visit) {
  tensors_of(t, visit);
};
template <class T, class V>
void call(const T& t, V& visit) {
  tensors_of(t, visit);
}
}  // namespace customization

template <class T>
concept Complete = std::is_class_v<T> && requires {
  sizeof(T);
};
template <class T>
concept TupleLike = requires {
  std::tuple_size<T>::value;
};
template <class T>
concept OptionalLike = requires(const T& t) {
  typename T::value_type;
  t.has_value();
  *t;
};
template <class T>
concept PointerLike = requires(const T& t) {
  typename T::element_type;
  t.get();
  *t;
  static_cast<bool>(t);
};
template <class T>
concept ReferenceLike = std::is_same_v<T, std::reference_wrapper<typename T::type>>;
template <class T>
struct is_variant : std::false_type {};
template <class... A>
struct is_variant<std::variant<A...>> : std::true_type {};
/// What owns its elements in memory, or shows memory: nothing happens when one looks at them.
template <class T>
concept Container = requires(const T& t) {
  typename T::value_type;
  t.begin() != t.end();
  t.size();
}
&&(
    requires { typename T::allocator_type; } || requires { typename T::element_type; });
template <class T>
concept Map = requires {
  typename T::mapped_type;
  typename T::key_type;
};
template <class T>
concept HashMap = Map<T> && requires(const typename T::key_type& k) {
  typename T::hasher;
  { k < k } -> std::convertible_to<bool>;
};

/// Known to hold no tensor, so that a long list of them costs nothing.
template <class T>
inline constexpr bool is_host_value = std::is_scalar_v<T> || std::is_function_v<T> || std::is_void_v<T>;

/// Walks one argument and tells `Sink` of each defined tensor. This is what `tensors_of` is given.
template <class Sink>
class Visitor {
 public:
  explicit Visitor(Sink& sink) : sink_(sink) {}

  /// Goes on with a part, under its name or without.
  template <class T>
  void operator()(const char* name, const T& part) {
    within([&] { return std::string(".") + name; }, part);
  }
  template <class T>
  void operator()(const T& part) {
    // An undefined tensor is a host value: the body sees it.
    if constexpr (std::is_same_v<T, Tensor>) {
      if (part.defined()) sink_.tensor(part);
    } else if constexpr (is_host_value<T>) {
    } else if constexpr (std::is_array_v<T>) {
      elements(part);
    } else if constexpr (Complete<T>) {
      class_value(part);
    }
  }
  /// Goes on with a part of an argument whose name is `piece()`.
  template <class Piece, class T>
  void within([[maybe_unused]] Piece&& piece, const T& part) {
    if constexpr (Sink::kNamed) {
      const size_t length = sink_.path.size();
      sink_.path += piece();
      (*this)(part);
      sink_.path.resize(length);
    } else {
      (*this)(part);
    }
  }

 private:
  static constexpr int kDeepest = 1'000;

  template <class T>
  void class_value(const T& part) {
    if constexpr (requires(Visitor & v) { part.tensors_of(v); }) {
      part.tensors_of(*this);
    } else if constexpr (customization::Function<T, Visitor>) {
      customization::call(part, *this);
    } else if constexpr (TupleLike<T>) {
      tuple(part, std::make_index_sequence<std::tuple_size_v<T>>());
    } else if constexpr (is_variant<T>::value) {
      if (!part.valueless_by_exception()) std::visit([&](const auto& held) { (*this)(held); }, part);
    } else if constexpr (OptionalLike<T>) {
      if (part.has_value()) (*this)(*part);
    } else if constexpr (PointerLike<T>) {
      if (!part) return;
      if (++depth_ > kDeepest) fail_circular();
      (*this)(*part);
      --depth_;
    } else if constexpr (ReferenceLike<T>) {
      (*this)(part.get());
    } else if constexpr (Container<T>) {
      if constexpr (HashMap<T>)
        sorted(part);
      else
        elements(part);
    } else if constexpr (Decomposable<T>) {
      with_fields(part, [&](const auto&... fields) {
        size_t i = 0;
        ((this->template field<T>(i++, std::index_sequence_for<decltype(fields)...>(), fields)), ...);
      });
    }
  }

  template <class T, size_t... I, class Field>
  void field([[maybe_unused]] size_t index, std::index_sequence<I...>, const Field& value) {
    within(
        [&] {
          std::string name;
          ((index == I ? void(name = field_name<T, I>()) : void()), ...);
          return "." + (name.empty() ? std::to_string(index) : name);
        },
        value);
  }

  template <class T, size_t... I>
  void tuple(const T& part, std::index_sequence<I...>) {
    using std::get;
    if constexpr (requires { part.first; })
      ((*this)("first", part.first), (*this)("second", part.second));
    else if constexpr (requires { part.begin(); })
      elements(part);
    else
      (within([] { return "." + std::to_string(I); }, get<I>(part)), ...);
  }

  template <class List>
  void elements(const List& list) {
    if constexpr (Map<List>) {
      for (const auto& [key, value] : list) entry(key, value);
    } else if constexpr (!is_host_value<std::remove_cvref_t<decltype(*std::begin(list))>>) {
      size_t i = 0;
      for (const auto& element : list) {
        within(
            [&] {
              std::string text = "[";  // by steps: g++ 12 warns of "[" + a temporary at -O3
              return text.append(std::to_string(i)).append("]");
            },
            element);
        ++i;
      }
    }
  }

  template <class M>
  void sorted(const M& map) {
    if constexpr (is_host_value<typename M::mapped_type>) return;
    std::vector<const typename M::value_type*> order;
    order.reserve(map.size());
    for (const auto& pair : map) order.push_back(&pair);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->first < b->first; });
    for (const auto* pair : order) entry(pair->first, pair->second);
  }

  template <class Key, class Value>
  void entry([[maybe_unused]] const Key& key, const Value& value) {
    within(
        [&] {
          if constexpr (std::is_convertible_v<const Key&, std::string_view>)
            return "[\"" + std::string(std::string_view(key)) + "\"]";
          else if constexpr (std::is_integral_v<Key>)
            return "[" + std::to_string(key) + "]";
          else
            return std::string("[...]");
        },
        value);
  }

  Sink& sink_;
  int depth_ = 0;
};

template <class T>
void collect(Arguments& out, const T& argument) {
  Collector sink{out};
  Visitor<Collector> visit(sink);
  visit(argument);
}

/// The path of the `index`-th tensor of these arguments.
template <class... Args>
std::string argument_name(size_t index, const Args&... arguments) {
  Namer sink{index};
  Visitor<Namer> visit(sink);
  [[maybe_unused]] size_t i = 0;
  (visit.within([&] { return "arg" + std::to_string(i++); }, arguments), ...);
  return sink.found;
}

}  // namespace tandem::tracer
