# One static (or, with BUILD_SHARED_LIBS, shared) library per folder of the house.

set(TANDEM_LIBRARIES)  # the folders so far, lowest first

# Adds library tandem_<folder> of all .cpp files below <folder>; a folder without sources adds nothing.
macro(tandem_add_folder folder)
  file(GLOB_RECURSE tandem_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
  if(tandem_sources)
    set(tandem_target tandem_${folder})
    add_library(${tandem_target} ${tandem_sources})
    add_library(tandem::${folder} ALIAS ${tandem_target})
    tandem_flags(${tandem_target})
    tandem_private_headers(${tandem_target})
    tandem_isa_flags(${tandem_sources})
    set_property(SOURCE ${PROJECT_SOURCE_DIR}/core/version.cpp
      PROPERTY COMPILE_DEFINITIONS TANDEM_VERSION="${PROJECT_VERSION}")
    target_compile_features(${tandem_target} PUBLIC cxx_std_20)
    target_include_directories(${tandem_target} PUBLIC
      $<BUILD_INTERFACE:${TANDEM_INCLUDE_DIR}> $<INSTALL_INTERFACE:include>)
    target_link_libraries(${tandem_target} PUBLIC ${TANDEM_LIBRARIES} Threads::Threads
      PRIVATE ZLIB::ZLIB ${TANDEM_IMAGE_LIBRARIES} ${CMAKE_DL_LIBS})
    if(TARGET tandem::dnnl)
      target_link_libraries(${tandem_target} PRIVATE tandem::dnnl)
    endif()
    set_target_properties(${tandem_target} PROPERTIES EXPORT_NAME ${folder} VERSION ${PROJECT_VERSION}
      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    if(EXISTS ${PROJECT_SOURCE_DIR}/${folder}/prelude.h)
      tandem_embed_text(${tandem_target} ${PROJECT_SOURCE_DIR}/${folder}/prelude.h tandem::${folder} kPreludeText)
      tandem_embed_text(${tandem_target} ${PROJECT_SOURCE_DIR}/${folder}/prelude_cuda.h tandem::${folder} kCudaPreludeText)
    endif()
    list(APPEND TANDEM_LIBRARIES ${tandem_target})
  endif()
endmacro()

# Compiles the text file `file` into `target` as `extern const char <symbol>[]` in `namespace`.
function(tandem_embed_text target file namespace symbol)
  set(output ${PROJECT_BINARY_DIR}/generated/${target}_${symbol}.cpp)
  get_filename_component(folder ${file} DIRECTORY)
  file(GLOB parts CONFIGURE_DEPENDS ${folder}/prelude_*.inc)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${output} -DNAMESPACE=${namespace} -DSYMBOL=${symbol}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake
    DEPENDS ${file} ${parts} ${PROJECT_SOURCE_DIR}/cmake/embed_text.cmake
    COMMENT "Embedding ${symbol}" VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
